"""The page docs/metrics.md: every column of metrics.csv, from metacpo/training/tags.py.

python tools/glossary.py            writes the page; a test says when it is out of date
"""

import sys
from pathlib import Path

from metacpo.training.tags import TAGS, Tag

PAGE = Path(__file__).resolve().parents[1] / "docs" / "metrics.md"
HEAD = """# Metrics

<!-- Made by tools/glossary.py from src/metacpo/training/tags.py. Do not edit. -->

Columns of `metrics.csv`, one row per meta-iteration, and tags of TensorBoard. *Adapted* is after the last inner step.
An iteration that does not log a column leaves it empty: warm-up iterations have no inner updates. `{k}` is the number
of an inner update, `{case}` a name of [`metacpo.solver.Case`](reference/solver.md). The columns `iteration`,
`env_steps` and `seconds` count from the beginning of the run.
"""
GROUPS = {
    "Metrics": "What the policies of this iteration earned and cost.",
    "Train": "The inner updates, and the policy.",
    "Meta": "The outer update.",
    "Misc": "How well it was computed, and what was left out.",
    "Adapt": "The same after each inner update.",
}


def page() -> str:
    """The whole page as text. Raises KeyError for a tag of a group that has no words."""
    groups: dict[str, list[tuple[str, Tag]]] = {name: [] for name in GROUPS}
    for name, tag in TAGS.items():
        groups[name.partition("/")[0]].append((name, tag))
    return HEAD + "".join(_section(name, tags) for name, tags in groups.items())


def _section(group: str, tags: list[tuple[str, Tag]]) -> str:
    rows = "".join(f"| `{name}` | {tag.unit} | {tag.description} |\n" for name, tag in tags)
    return f"\n## {group}\n\n{GROUPS[group]}\n\n| tag | unit | what it is |\n|---|---|---|\n{rows}"


def main() -> int:
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
