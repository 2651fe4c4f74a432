"""`python -m lib.tools.book [PROFILE]`, what `make book` does: the book of one run in outputs/book/html."""

import argparse

from lib.errors import StudyError
from lib.files import ROOT
from lib.tools.book.build import build_book

parser = argparse.ArgumentParser(prog="python -m lib.tools.book", description="The book of one run, as HTML.")
parser.add_argument("profile", nargs="?", default="mini", help="a run of outputs or outputs/reference (mini)")
out = ROOT / "outputs" / "book" / "html"
try:
    print(f"{build_book(parser.parse_args().profile, out)} notebooks: open {(out / 'index.html').relative_to(ROOT)}")
except StudyError as error:
    parser.exit(2, f"{error}\n")
except ModuleNotFoundError as error:
    parser.exit(2, f"{error}; the book needs: python -m pip install -e '.[book]' -c requirements.lock\n")
