"""The pages of the documentation as tests see them: their text, code and headings."""

import re
from pathlib import Path

REPO = Path(__file__).parents[2]
DOCS = REPO / "docs"
FENCE = re.compile(r"^(<!-- tested -->\n)?```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every page of the documentation, and what is written beside the code."""
    return sorted([*DOCS.rglob("*.md"), *REPO.glob("*.md"), *REPO.glob("examples/*/*.md")])


def code(page: Path) -> list[tuple[str, str]]:
    """The page's tested blocks in their order, as (language, code): all Python, and what is marked as tested."""
    blocks = FENCE.findall(page.read_text(encoding="utf-8"))
    return [(language, text) for tested, language, text in blocks if language == "python" or tested]


def prose(page: Path) -> str:
    """The page without its fenced code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What a link may name after # on this page: its headings as GitHub and the site spell them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
