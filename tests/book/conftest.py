"""`make test-book`: the built book in headless Chromium, opened from disk with the network cut.

The files are named check_*, so that `make test` passes them by: they need a browser and a built book.
"""

import os
import shutil
from pathlib import Path

import pytest

from lib.files import ROOT
from tests.book.visits import visit

BOOK = ROOT / "outputs" / "book" / "html"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def pages(book: Path) -> list[Path]:
    return sorted(path for path in book.rglob("*.html") if "_static" not in path.parts)


@pytest.fixture(scope="session")
def browser():
    """Chromium that can resolve no name: the machine's own, STUDY_BROWSER, or the one playwright installed."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the extra `browser` is not installed")
    path = os.environ.get("STUDY_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    with playwright.sync_playwright() as started:
        cut = ["--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--no-sandbox"]
        try:
            made = started.chromium.launch(executable_path=path, args=cut)
        except playwright.Error as error:
            pytest.exit(f"no Chromium: `apt-get install chromium` or `playwright install chromium` ({error})", 1)
        yield made
        made.close()


@pytest.fixture(scope="session")
def book() -> Path:
    if not (BOOK / "index.html").exists():
        pytest.exit("there is no book to open: run `make book` first", 1)
    return BOOK


@pytest.fixture
def context(browser):
    made = browser.new_context(viewport={"width": 1280, "height": 900})
    yield made
    made.close()


@pytest.fixture(scope="session")
def visits(browser, book):
    """What is to be seen on every page of the book."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    seen = {path: visit(context, path) for path in pages(book)}
    context.close()
    return seen
