"""Which cost is limited: decided in one place, and everywhere by it."""

import re
from pathlib import Path
from typing import get_args

from metacpo.estimation.measures import CostMeasure, limited, unlimited
from metacpo.training.tags import LIMITED_COLUMN, LIMITED_COST

ROOT = Path(__file__).parents[2]
# A measure beside an if, a comparison or a branch: another place that decides.
DECIDES = re.compile(r"""(==|!=|\bin\b|\bcase\b)\s*\(?\s*["'](episode|discounted)["']""")


def test_the_limited_one_of_two():
    assert [limited(measure, 1, 2) for measure in ("episode", "discounted")] == [1, 2]
    assert [unlimited(measure, 1, 2) for measure in ("episode", "discounted")] == [2, 1]


def test_both_have_names_in_the_files_of_a_run():
    assert set(LIMITED_COST) == set(LIMITED_COLUMN) == set(get_args(CostMeasure))


def test_no_other_place_decides_it():
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    places = [path.relative_to(ROOT).as_posix() for path in sources if DECIDES.search(path.read_text(encoding="utf-8"))]
    assert places == ["src/metacpo/estimation/measures.py"]
