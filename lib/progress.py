"""The progress bar of long work: plain text on stdout, the same in terminals, logs and notebooks."""

import sys

from tqdm import tqdm

SHORT = "{desc} {percentage:3.0f}%|{bar:12}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


def bar(total: int, desc: str) -> tqdm:
    """A bar of `total` units: `desc  50%|######      | 192/384 [00:20<00:20, loss=0.31, rows/s=300]`.

    [time spent<time left]. Use it in a `with`, hand it to `training.fit` (total = steps) or `training.predict`
    (total = rows). A terminal is refreshed twice a second; a log or a notebook every ten seconds, so that a saved
    notebook holds a few short lines. The final state stays.
    """
    live = sys.stdout.isatty()
    # tqdm skips its empty first line where there is a delay, however small
    return tqdm(total=total, desc=desc, file=sys.stdout, bar_format=SHORT, ascii=" #", mininterval=0.5 if live else 10,
                miniters=1, delay=0 if live else 1e-9)
