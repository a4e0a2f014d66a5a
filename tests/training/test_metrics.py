"""metrics.csv and the TensorBoard events: complete, exact, and without a seam where a run was resumed."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from metacpo.training.metrics import FILE, MetricsError, MetricsWriter
from metacpo.training.progress import Row, ShownCost, clock, progress
from metacpo.training.tags import constraints_in, describe, limit_of, of_constraint, todays_name

THIRD = np.float32(1) / np.float32(3)


TAGS = ["Adapt/step12/EpCost", "Metrics/EpRet", "Train/KL"]


def row(value: float) -> dict[str, np.ndarray]:
    return {"Metrics/EpRet": np.asarray(value, np.float32), "Adapt/step12/EpCost": np.asarray(THIRD)}


def write(run_dir, iterations, resume_at=0, scale=1.0):
    with MetricsWriter(run_dir, TAGS, resume_at) as writer:
        for iteration in iterations:
            writer.write(iteration, 100 * iteration, 1.5 * iteration, row(scale * iteration))


def read(run_dir) -> list[list[str]]:
    with (run_dir / "metrics.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_rows_are_complete_and_exact(tmp_path):
    write(tmp_path, [1, 2])
    header, first, second = read(tmp_path)
    assert header == ["iteration", "env_steps", "seconds", *TAGS]
    assert first[:3] == ["1", "100", "1.500"]
    assert np.float32(second[3]) == THIRD
    assert np.float32(second[4]) == 2.0
    assert second[5] == ""  # an iteration that does not log a tag leaves its cell empty


def test_a_row_is_on_disk_as_soon_as_it_is_written(tmp_path):
    with MetricsWriter(tmp_path, TAGS) as writer:
        writer.write(1, 100, 1.5, row(1.0))
        assert len(read(tmp_path)) == 2


def test_resuming_drops_the_rows_after_the_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    with MetricsWriter(tmp_path, TAGS, resume_at=2) as writer:
        assert (writer.env_steps, writer.seconds) == (200, 3.0)
    write(tmp_path, [3, 4], resume_at=2, scale=10.0)
    lines = read(tmp_path)
    assert [line[0] for line in lines[1:]] == ["1", "2", "3", "4"]
    assert [float(line[4]) for line in lines[1:]] == [1.0, 2.0, 30.0, 40.0]


def test_a_file_that_cannot_be_continued_is_named(tmp_path):
    with pytest.raises(MetricsError, match=r"metrics\.csv: missing"):
        MetricsWriter(tmp_path, TAGS, resume_at=2)
    write(tmp_path, [1, 2])
    with pytest.raises(MetricsError, match=r"metrics\.csv: ends at iteration 2, before .* iteration 3"):
        MetricsWriter(tmp_path, TAGS, resume_at=3)
    counters = "iteration,env_steps,seconds"
    for text in ("iteration,env_steps\n1,5\n", f"{counters}\n1,x,1\n", f"{counters},Meta/KL\n1,5,0.1,x\n"):
        (tmp_path / "metrics.csv").write_text(text)
        with pytest.raises(MetricsError, match=r"metrics\.csv: damaged"):
            MetricsWriter(tmp_path, TAGS, resume_at=1)


def test_other_columns_are_refused(tmp_path):
    write(tmp_path, [1])
    with pytest.raises(MetricsError, match="its columns are not those"):
        MetricsWriter(tmp_path, TAGS[:-1], resume_at=1)
    with MetricsWriter(tmp_path, TAGS, resume_at=1) as writer, pytest.raises(MetricsError, match="has no column"):
        writer.write(2, 200, 3.0, {"Train/PolicyStd": np.asarray(1.0)})


def test_a_run_of_a_version_that_logged_less_goes_on(tmp_path):
    write(tmp_path, [1, 2])
    before = (tmp_path / "metrics.csv").read_text().splitlines()
    wider = ["Train/PolicyStd", *TAGS]
    with MetricsWriter(tmp_path, wider, resume_at=1) as writer:
        writer.write(2, 200, 3.0, {"Train/PolicyStd": np.asarray(0.5)})
    with (tmp_path / "metrics.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert list(first) == ["iteration", "env_steps", "seconds", *wider]
    assert first["Train/PolicyStd"] == "" and second["Train/PolicyStd"] == "0.5"
    old = dict(zip(before[0].split(","), before[1].split(","), strict=True))
    assert {name: first[name] for name in old} == old


def test_a_run_of_a_version_with_other_names_goes_on(tmp_path):
    """The cells stay what they were; the columns have today's names, in today's order."""
    (tmp_path / FILE).write_text(
        "iteration,env_steps,seconds,Meta/CostPromised,Train/CostRealised,Misc/Edge\n1,5,0.1,1.5,2.5,3\n"
    )
    tags = ("Misc/DerivativeClipped", "Meta/CostPredicted", "Train/CostActual")
    with MetricsWriter(tmp_path, tags, resume_at=1):
        pass
    header, row = (tmp_path / FILE).read_text().splitlines()
    assert dict(zip(header.split(","), row.split(","), strict=True)) == {
        "iteration": "1",
        "env_steps": "5",
        "seconds": "0.1",
        "Misc/DerivativeClipped": "3",
        "Meta/CostPredicted": "1.5",
        "Train/CostActual": "2.5",
    }


def test_events_carry_the_same_numbers(tmp_path):
    write(tmp_path, [1, 2])
    data = b"".join(path.read_bytes() for path in (tmp_path / "tb").iterdir())
    assert data.count(b"Metrics/EpRet") >= 2
    assert np.float32(2).tobytes() in data


def test_tags_have_a_unit_and_a_description():
    assert describe("Adapt/step3/EpRet").unit == "return"
    assert describe("Misc/Case/BINDING").unit == "updates"
    with pytest.raises(KeyError):
        describe("Metrics/Nothing")


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (7325.0, "2:02:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text


ROW = Row(3, 9, 3000, 9000, 12345.6, 7.125, (ShownCost("walls", 26.0, 25.0),), 0.0098, "binding", 75.0)


def test_plain_lines_are_few_and_complete(monkeypatch):
    output = io.StringIO()
    display = progress(Console(file=output))
    times = iter([0.0, 4.0, 11.0, 12.0])
    monkeypatch.setattr("time.monotonic", lambda: next(times))
    with display:
        for iteration in (1, 2, 3, 9):  # shown: the first, after ten seconds, the last
            display.show(dataclasses.replace(ROW, iteration=iteration))
    first, *others = output.getvalue().splitlines()
    assert first == (
        "iteration 1/9  steps 3.0/9.0 k  steps/s 12,346  return 7.12  cost 26.00  limit 25  KL 0.0098  "
        "case binding  time left 1:15"
    )
    assert [line.split()[1] for line in others] == ["3/9", "9/9"]


def test_a_terminal_gets_a_table_that_is_redrawn():
    output = io.StringIO()
    display = progress(Console(file=output, force_terminal=True, width=120))
    with display:
        display.show(ROW)
        display.show(dataclasses.replace(ROW, iteration=4))
    assert "3/9" in output.getvalue()
    assert "4/9" in output.getvalue()
    assert "\x1b[" in output.getvalue()


def test_every_one_of_several_constraints_is_shown_by_name():
    """In the sum, 5.75 + 10 of .001 + 1000, the first would not be seen to be broken."""
    costs = (ShownCost("speed", 5.75, 0.001), ShownCost("heat[C]", 10.0, 1000.0))
    row = dataclasses.replace(ROW, costs=costs)
    output = io.StringIO()
    with progress(Console(file=output)) as display:
        display.show(row)
    assert "cost speed 5.75  limit speed 0.001  cost heat[C] 10.00  limit heat[C] 1000  KL" in output.getvalue()
    assert row.styles == {"cost speed": "red", "cost heat[C]": "green"}
    output = io.StringIO()
    with progress(Console(file=output, force_terminal=True, width=200)) as display:
        display.show(row)
    assert "limit heat[C]" in output.getvalue() and "\x1b[31m5.75" in output.getvalue()


def test_tags_of_one_constraint():
    assert describe("Metrics/EpCost/speed").unit == describe("Metrics/CostLimit/heat [C]").unit == "cost"
    columns = ("Metrics/CostLimit", "Metrics/CostLimit/heat", "Metrics/CostLimit/speed", "Metrics/EpCost/speed")
    assert constraints_in(columns) == ["heat", "speed"] and constraints_in(columns[:1]) == []
    assert limit_of("Metrics/EpCost") == "Metrics/CostLimit"
    assert limit_of(of_constraint("Metrics/DiscountedCost", "heat")) == "Metrics/CostLimit/heat"
    assert todays_name("Metrics/EpCost/Edge") == "Metrics/EpCost/Edge"
