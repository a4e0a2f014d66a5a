"""What the documentation says of the repository is there: links, files, names, floors, metrics."""

import re

import glossary
import pytest
from pages import DOCS, REPO, anchors, pages, prose
from test_imports import LAYERS

import metacpo
from metacpo.cli.verbs import VERBS
from metacpo.training.tags import TAGS

PAGES = [path.relative_to(REPO) for path in pages()]
LINK = re.compile(r"\]\(([^)\s]+)\)")
FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|toml|csv|md|xml|lock|cff))(?:::[\w.]+)?`")
MADE = {"adaptation.csv", "metrics.csv", "paths.csv", "config.toml"}  # by a run
FOLDERS = ("src", "tests", "docs", "benchmarks", "examples", "tools")
PATHS = [*REPO.glob("*"), *(path for folder in FOLDERS for path in (REPO / folder).rglob("*"))]
KNOWN = {f"/{path.relative_to(REPO)}" for path in PATHS}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    """Relative links to files that are there and to headings that they have."""
    for link in LINK.findall(prose(REPO / page)):
        if re.match(r"https?:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (REPO / page).parent / name if name else REPO / page
        assert target.exists(), f"{page}: {link} leads nowhere"
        assert not anchor or anchor in anchors(target), f"{page}: {link}: no such heading"


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=str)
def test_files_that_are_named_exist(page):
    """By the end of their path: `algorithms/steps.py` is src/metacpo/algorithms/steps.py."""
    for name in FILE.findall(prose(REPO / page)):
        assert name in MADE or any(known.endswith(f"/{name}") for known in KNOWN), f"{page}: no file {name}"


def test_the_architecture_shows_every_floor():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    shown = {name: int(floor) for floor, name in re.findall(r"^\| (\d+) \| `(\w+)` \|", text, re.MULTILINE)}
    assert shown == {name: floor for name, floor in LAYERS.items() if name != "__init__"}
    picture = (DOCS / "architecture.svg").read_text(encoding="utf-8")
    assert all(name in picture for name in shown if name != "gymnasium_ids")


def test_the_metrics_page_is_up_to_date():
    """Made again where it is not: python tools/glossary.py."""
    written = (DOCS / "metrics.md").read_text(encoding="utf-8")
    assert written == glossary.page()
    assert set(re.findall(r"^\| `([^`]+)`", written, re.MULTILINE)) == set(TAGS)


def test_the_reference_has_every_public_name():
    text = (DOCS / "reference" / "metacpo.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"^::: metacpo\.(\w+)$", text, re.MULTILINE))
    assert shown == set(metacpo.__all__) - {"__version__", "solver"}


def test_the_verbs_are_those_of_the_command_line():
    text = (DOCS / "conventions.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^Verbs: (.*)\.$", text, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)`", line)) == set(VERBS)


@pytest.mark.parametrize(("page", "most"), [("docs/adaptation.md", 1040), ("README.md", 1150)])
def test_pages_that_are_to_stay_short(page, most):
    assert len((REPO / page).read_text(encoding="utf-8").split()) < most
