"""Several constraints: each is shown by name against its own limit, and no sum stands for one of them."""

import numpy as np
import pytest
from synthetic_runs import write_run, write_table

from metacpo.report import write_readme_picture, write_report
from metacpo.report.read import read_run
from metacpo.report.summary import constraint_verdicts


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run", wider=True, several=True)


def test_every_constraint_has_its_own_verdict(folder):
    """Held-out: the walls' cost is 36 − 5 (k + i) against 20, the hazards' always 4 against 5."""
    walls, hazards = constraint_verdicts(read_run(folder), "held-out")
    assert (walls.name, walls.limits, walls.cost, walls.within) == ("walls", (20, 20), (28.5, 13.5), (0, 3))
    assert walls.worst == (16, 1)
    assert (hazards.name, hazards.cost, hazards.within, hazards.worst) == ("hazards", (4, 4), (4, 4), (-1, -1))


def test_a_task_without_a_valid_step_is_within_no_constraint(folder):
    run = read_run(folder)
    last = run.adaptation.numbers["step"] == 3
    for task in (1, 2):
        run.adaptation.numbers["excess"][last & (run.adaptation.numbers["task"] == task)] = np.inf
    assert [each.within[1] for each in constraint_verdicts(run, "held-out")] == [1, 2]


def test_the_page_names_every_constraint(folder):
    text = write_report([folder]).read_text()
    assert "<h3>Each constraint</h3>" in text
    row = (
        "<div>walls</div>",
        '<span class="before">28.5</span> → <b>13.5</b>',
        '<span class="before">0/4</span> → <b>3/4</b>',
    )
    assert all(cell in text for cell in row)
    assert 'walls <span class="before">28.5</span> → <b>13.5</b> (within the limit of 20)' in text
    for title in ("Episode cost of walls", "Episode cost of hazards"):
        assert text.count(f"<h3>{title}</h3>") == 1
        assert text.count(f"<h3>{title}, held-out tasks</h3>") == 1
    assert "sum of walls + hazards" in text and "limit 25" not in text
    assert text.count("<figure>") == 6 + 6 + 6 + 5


def test_columns_that_are_missing_leave_out_what_they_would_show(folder):
    """An older adaptation.csv beside newer metrics: the curves have names, the table has the sum."""
    other = write_run(folder.parent / "other")
    (folder / "adaptation.csv").write_text((other / "adaptation.csv").read_text())
    text = write_report([folder]).read_text()
    assert "<h3>Each constraint</h3>" not in text and "<h3>Episode cost of walls</h3>" in text
    assert "<h3>Episode cost, sum of the constraints, held-out tasks</h3>" in text
    metrics = read_run(folder).metrics
    kept = {tag: values for tag, values in metrics.items() if not tag.startswith("Metrics/EpCost/")}
    write_table(folder / "metrics.csv", list(kept), np.stack(list(kept.values()), axis=1).tolist())
    assert "<h3>Episode cost of walls</h3>" not in write_report([folder]).read_text()


def test_several_runs_and_the_picture(folder, tmp_path):
    second = write_run(tmp_path / "second", wider=True, several=True, seed=1)
    text = write_report([folder, second], tmp_path / "both.html").read_text()
    assert text.count("<div>walls</div>") == 4
    write_readme_picture(folder, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000
