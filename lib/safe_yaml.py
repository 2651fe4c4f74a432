"""YAML read safely: plain values only, no key twice, errors in one line that names the place."""

import re
from pathlib import Path
from typing import Any

import yaml

from lib.errors import StudyError


class _SafeLoader(yaml.SafeLoader):
    """YAML in which 2e-4 is a number (YAML 1.1 reads a string) and a key written twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise StudyError(f"line {key.start_mark.line + 1}: key '{key.value}' stands twice; keep one of the two")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


NUMBER = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_SafeLoader.add_implicit_resolver("tag:yaml.org,2002:float", NUMBER, list("-+0123456789"))


def parse(text: str, where: str) -> Any:
    """The value of a YAML text. Raises StudyError that names `where` and the line."""
    try:
        return yaml.load(text, _SafeLoader)
    except StudyError as error:
        raise StudyError(f"{where}: {error}") from None
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:  # no date, !!int; too deep
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        what = " ".join(str(getattr(error, "problem", None) or error).split())
        raise StudyError(f"{where}: {line}not readable as YAML: {what}; mend {'that line' if mark else 'it'}") from None


def read(path: Path, where: str = "") -> Any:
    """The content of a YAML file. Raises StudyError that names it as `where`, by its path if none is given."""
    where = where or str(path)
    try:
        return parse(path.read_text(encoding="utf-8"), where)
    except UnicodeDecodeError as error:
        raise StudyError(f"{where}: byte {error.start + 1} is not UTF-8; save the file as UTF-8 text") from None
    except OSError as error:
        raise StudyError(f"{where}: cannot be read ({error.strerror}); give the path of a YAML file") from None
