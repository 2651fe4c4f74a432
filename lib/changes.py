"""What a run was given otherwise than another set of parameters, as it is typed after SET."""

from collections.abc import Mapping
from typing import Any

import yaml


def overrides(ran: Mapping[str, Any], now: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the parameters of a run (`Profile.as_dict`, or its params.yaml) differ from others: the task that a value of
    `per_task` is for, or "", and `section.key=value` with the run's value. Left out are keys that only one of the two knows;
    `per_task` may name other keys in each, there those of the run count.
    """
    whole, other = ({name: keys for name, keys in given.items() if name != "per_task"} for given in (ran, now))
    found = [("", f"{name}.{key}={_written(value)}") for name, keys in whole.items() for key, value in keys.items()
             if value != other.get(name, {}).get(key, value)]
    tasks, other = (given.get("per_task", {}) for given in (ran, now))
    return found + [(task, f"{key}={_written(value)}") for task, keys in tasks.items() for key, value in keys.items()
                    if value != other.get(task, {}).get(key)]


def _written(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
