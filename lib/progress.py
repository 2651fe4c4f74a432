"""The progress bar of long work: plain text on stdout, the same in terminals, logs and notebooks. Other bars hushed."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

from tqdm import tqdm

SHORT = "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
LONG = 10  # seconds from which on a person wants to know


def bar(total: int, desc: str, wait: float = 0) -> tqdm:
    """A bar of `total` units: `desc  50%|######      | 192/384 [00:20<00:20, loss=0.31, rows/s=300]`.

    [time spent<time left]. Use it in a `with`, hand it to `loop.fit` (total = steps) or `loop.predict`
    (total = rows). A terminal is refreshed twice a second; a log or a notebook every ten seconds, so that a saved
    notebook holds a few short lines. The final state stays. wait: what takes fewer seconds is not shown at all.
    """
    live = sys.stdout.isatty()
    # tqdm skips its empty first line where there is a delay, however small; at position 0 a bar inside another
    # (predictions within a training) moves no cursor, which only a terminal understands
    return tqdm(total=total, desc=desc, file=sys.stdout, bar_format=SHORT, ascii=" #", miniters=1,
                mininterval=0.5 if live else LONG, position=None if live else 0, delay=wait or (0 if live else 1e-9))


@contextmanager
def hushed(loggings: list[ModuleType], shown: bool, hide: Callable, show: Callable) -> Iterator[None]:
    """Inside, libraries tell errors alone: `loggings` are their modules with a verbosity; `hide` takes their bars away,
    `show` brings them back where they are `shown` now."""
    levels = [logging.get_verbosity() for logging in loggings]
    for logging in loggings:
        logging.set_verbosity_error()
    hide()
    try:
        yield
    finally:
        for logging, level in zip(loggings, levels):
            logging.set_verbosity(level)
        if shown:
            show()
