"""A hook of MkDocs: pages may link to files of the repository beside docs/, and these become part of the site.

docs/ is the site's root, so that docs/your_own.md is your_own.md there; every other file that a page links to keeps
its path from the repository's root. Links are those of the repository (they work where it is read as files) and are
rewritten for the site. A link to nothing stays as it is, and MkDocs' strict mode fails on it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

REPO = Path(__file__).resolve().parents[1]
DOCS = "docs/"
ALWAYS = ("CONTRIBUTING.md", "CHANGELOG.md")  # in the navigation
LINK = re.compile(r"(?<=\]\()([^)#\s:]+)(?=[)#])")


def repo_path(site_path: str) -> str:
    """Where a file of the site lies in the repository."""
    return DOCS + site_path if (REPO / DOCS / site_path).exists() else site_path


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return path.removeprefix(DOCS)


def linked(path: str) -> list[str]:
    """The files of the repository that a page of it links to, by their paths from its root."""
    text = (REPO / path).read_text(encoding="utf-8")
    targets = (posixpath.normpath(posixpath.join(posixpath.dirname(path), link)) for link in LINK.findall(text))
    return [target for target in targets if (REPO / target).is_file()]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to beside docs/, and what that links to."""
    waiting = [repo_path(file.src_uri) for file in files.documentation_pages()] + list(ALWAYS)
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        if files.get_file_from_path(site_path(path)) is None:
            level = InclusionLevel.INCLUDED if path in ALWAYS else InclusionLevel.NOT_IN_NAV
            files.append(File.generated(config, site_path(path), abs_src_path=str(REPO / path), inclusion=level))
        if path.endswith(".md"):
            waiting += linked(path)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links as the site needs them."""
    here = repo_path(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), match[1]))
        if not (REPO / target).is_file():
            return match[1]
        return posixpath.relpath(site_path(target), posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(rewritten, markdown)
