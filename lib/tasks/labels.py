"""How a label or a name is read: as text, the same for 1, 1.0 and "1", and for the 0 and 1 of a truth value."""

import re
from collections.abc import Container

TRUTH = {"true": "1", "false": "0"}


def as_text(value: object) -> str:
    """A label or name as text, the same for 1, 1.0 and "1"; "" for a missing one."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def known_as(value: object, known: Container[str]) -> str:
    """The one of the known labels that a value stands for, else the value as text.

    Where that is none of them: a whole number written 1.0 or 1,0 is 1; true and false, in capitals or not, are those
    words in small letters or, where both 0 and 1 are known, 1 and 0.
    """
    text = as_text(value)
    if text in known:
        return text
    if re.fullmatch(r"[+-]?\d+[.,]0+", text):
        other = str(int(re.split("[.,]", text)[0]))
    else:
        other = text.lower() if text.lower() in TRUTH else ""
        if other and other not in known:
            other = TRUTH[other] if "0" in known and "1" in known else ""
    return other if other in known else text
