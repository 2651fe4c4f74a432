"""The one error type that is meant for the person who runs the study, and how its line is worded."""

import re
from difflib import get_close_matches
from typing import Any, Iterable, Mapping


class StudyError(ValueError):
    """A mistake in parameters, files or models, told in one line with its mend."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The end of an error message: the valid name closest to a wrong one, or the first 12 where none is close."""
    names = [str(known) for known in valid]
    close = get_close_matches(str(name), names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; choose from {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}" if names else ""


def fault(error: Mapping[str, Any], known: Iterable[str] = ()) -> str:
    """One line for an error of pydantic (an item of `ValidationError.errors()`). known: the keys valid there."""
    key, kind, value = ".".join(str(part) for part in error["loc"]), error["type"], error["input"]
    if kind in ("extra_forbidden", "invalid_key"):
        return f"unknown key '{key}'{nearest(str(error['loc'][-1]), known)}"
    if kind == "missing":
        return f"key '{key}' is missing; add it"
    if kind == "value_error":
        said = str(error["ctx"]["error"])
        return f"{key}: {said}" if key else said
    if kind in ("model_type", "dict_type"):
        return f"{key or 'it'} must be a mapping of keys, not {value!r}"
    if kind == "too_short":
        return f"{key} must hold {error['ctx']['min_length']} or more"
    if kind == "string_type":
        return f"{key} must be text, not {value!r}; put it in quotes"
    if kind == "literal_error":
        choices = re.findall(r"'([^']+)'", error["ctx"]["expected"])
        return f"{key} is {value!r}{nearest(str(value), choices)}"
    return f"{key} is {value!r}: {error['msg'].replace('Input should', 'should')}; mend it"
