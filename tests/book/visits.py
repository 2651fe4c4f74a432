"""One page of the book as a browser sees it, and what is wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOOK = """async () => {
  await window.MathJax?.startup?.promise;
  const said = element => element.textContent.trim().slice(0, 60);
  const problems = [];
  for (const image of document.images) {
    if (!(image.complete && image.naturalWidth)) problems.push("no picture: " + image.getAttribute("src"));
    if (!image.hasAttribute("alt")) problems.push("no alternative text: " + image.getAttribute("src"));
  }
  for (const place of document.querySelectorAll(".math")) {
    const drawn = place.querySelector("mjx-container svg");
    const size = drawn ? drawn.getBoundingClientRect().width : 0;
    if (!drawn || (place.checkVisibility() && !size)) problems.push("equation not rendered: " + said(place));
    else if (place.querySelector("[data-mml-node=merror]")) problems.push("equation at fault: " + said(place));
  }
  return {problems, equations: document.querySelectorAll("mjx-container svg").length, images: document.images.length,
          links: [...document.querySelectorAll("a[href]")].map(link => link.href),
          ids: [...document.querySelectorAll("[id]")].map(element => element.id)};
}"""


@dataclass(frozen=True)
class Visit:
    problems: list[str]
    equations: int
    images: int
    links: list[str]
    ids: list[str]


def watch(page) -> list[str]:
    """A list that fills with every console error, failed request and request that is not for a file."""
    problems: list[str] = []
    page.on("console", lambda message: problems.append(f"console: {message.text}") if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(f"script: {error}"))
    page.on("requestfailed", lambda request: problems.append(f"request failed: {request.url}"))
    page.on("request", lambda request: None if urlsplit(request.url).scheme in ("file", "data", "blob")
            else problems.append(f"request leaves: {request.url}"))
    return problems


def visit(context, path: Path) -> Visit:
    """Open a page of the book from disk and look at it."""
    page = context.new_page()
    problems = watch(page)
    page.goto(path.as_uri(), wait_until="load")
    seen = page.evaluate(LOOK)
    page.close()
    return Visit(**seen | {"problems": [*problems, *seen["problems"]]})


def stuck_sliders(context, path: Path) -> list[str]:
    """Sliders of a page that the keyboard moves and that change nothing in the output around them."""
    page = context.new_page()
    stuck = watch(page)
    page.goto(path.as_uri())
    for place, slider in enumerate(page.locator("input[type=range]").all(), 1):
        output = slider.locator("xpath=ancestor::*[contains(@class, 'output')][1]")
        shown = set()
        for key in ("Home", "End"):
            slider.focus()
            page.keyboard.press(key)
            shown.add(output.inner_html())
        if len(shown) == 1:
            stuck.append(f"{path.name}: slider {place} changes nothing")
    page.close()
    return stuck


def dead_links(visits: dict[Path, Visit]) -> list[str]:
    """Links between the pages, or to files beside them, that lead nowhere."""
    dead = []
    for path, seen in visits.items():
        for link in sorted(set(seen.links)):
            parts = urlsplit(link)
            target = Path(unquote(parts.path))
            if parts.scheme != "file":
                continue
            if not target.is_file():
                dead.append(f"{path.name}: {link} is not there")
            elif parts.fragment and target in visits and unquote(parts.fragment) not in visits[target].ids:
                dead.append(f"{path.name}: {link} has no such place")
    return dead
