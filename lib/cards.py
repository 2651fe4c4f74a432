"""Several jobs, several GPUs in one machine: each process takes the card that the fewest others hold."""

import fcntl
import getpass
import itertools
import tempfile
from pathlib import Path

_held: dict[Path, tuple[int, object]] = {}


def take(n_cards: int, folder: Path | None = None) -> int:
    """The number of the card for this process, 0 to n_cards - 1; asked again the same one. It is held by a lock that dies
    with the process, so that jobs side by side spread over the cards, and beyond one a card share them evenly.

    folder: where the locks lie; by default a folder of this user's in the machine's temporary one.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"study-cards-{getpass.getuser()}"
    if folder in _held:
        return _held[folder][0]
    folder.mkdir(parents=True, exist_ok=True)
    for place in itertools.count():
        for card in range(n_cards):
            file = open(folder / f"card{card}-{place}", "a")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            _held[folder] = card, file
            return card
