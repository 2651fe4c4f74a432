"""The one error type that is meant for the person who runs the study, and the end of its line: the valid name."""

from difflib import get_close_matches
from typing import Iterable


class StudyError(ValueError):
    """A mistake in parameters, files or models, told in one line with its mend."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: the valid name closest to a wrong one, or the first 12 where none is close."""
    names = [str(known) for known in valid]
    close = get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}" if names else ""
