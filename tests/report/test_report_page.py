"""The page is whole, self-contained and safe; what a run did not log is left out, in words."""

import json
import re
import struct
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from synthetic_runs import CASES, CONFIG, write_run, write_table

from metacpo.report import ReportError, write_readme_picture, write_report
from metacpo.report.paths import share_words
from metacpo.report.read import read_run
from metacpo.report.updates import binned_cases, case_counts, predictions
from metacpo.report.words import number, percent

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Reader(HTMLParser):
    """Checks that tags are balanced; collects ids, links, tags, headings and the text of table cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.cells = [], [], [], set(), []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag == "td":
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open:
            self.cells[-1] += data


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("report") / "run")
    return write_report([folder])


def test_default_place_and_size(report):
    assert report.name == "report.html" and report.parent.name == "run"
    assert report.stat().st_size < 1_500_000


def test_page_is_balanced_and_self_contained(report):
    text = report.read_text()
    reader = Reader(text)
    assert "http://" not in text and "https://" not in text and "@import" not in text
    assert reader.links and all(link.startswith("#") for link in reader.links)
    assert {link[1:] for link in reader.links} <= set(reader.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(reader.ids)
    assert len(reader.ids) == len(set(reader.ids))
    assert not reader.tags & {"script", "link", "iframe", "img"}


def test_every_colour_of_the_figures_follows_the_theme(report):
    text = report.read_text()
    assert "var(--cost)" in text and "DejaVu" not in text
    used = set(re.findall(r"var\(--([a-z]+)\)", text))
    assert used <= set(re.findall(r"--([a-z]+):", text))


def test_page_depends_on_the_run_alone(report, tmp_path):
    with matplotlib.rc_context({"axes.facecolor": "black", "lines.linewidth": 9, "font.family": "monospace"}):
        again = write_report([report.parent], tmp_path / "again.html")
        assert matplotlib.rcParams["lines.linewidth"] == 9
    assert again.read_text() == report.read_text()


def test_table_shows_the_hand_computed_verdict(report):
    cells = Reader(report.read_text()).cells
    assert cells[:6] == [
        "held-out", "4", "11.5 → 41.5", "32.5 → 17.5limit 25", "6.50 → 3.50",
        "1/4 → 4/451–100\u00a0% (95\u00a0% interval)",
    ]  # fmt: skip
    assert cells[11] == "0/4 → 1/45–70\u00a0% (95\u00a0% interval)"


@pytest.mark.slow
def test_the_steps_that_were_used_stand_below_the_table(tmp_path):
    config = CONFIG + "[adaptation]\nepisodes = 20\n"
    first, second = write_run(tmp_path / "a", 40, config), write_run(tmp_path / "b", 80, config)
    episodes = "Episodes that an update of a task sees: 20."
    note = f"Environment steps of the training: 1\u2009000\u2009000. {episodes}"
    assert note in write_report([first]).read_text()
    note = f"Environment steps of the training: a 1\u2009000\u2009000, b 2\u2009000\u2009000. {episodes}"
    assert note in write_report([first, second]).read_text()


@pytest.mark.slow
def test_table_shows_episodes_above_and_the_worst_task_where_they_are_known(report, tmp_path):
    wider = Reader(write_report([write_run(tmp_path / "wider", wider=True)]).read_text()).cells
    assert wider[2].startswith("11.5 → 41.5") and "95\u00a0% interval" in wider[2]
    assert wider[6].startswith("65\u00a0% → 35\u00a0%")
    assert wider[7] == "+15.0 → 0at most 53\u00a0% of tasks are worse (95\u00a0%)"
    assert "Worst task" not in report.read_text()
    both = [report.parent, tmp_path / "wider"]  # a column that one of the runs lacks is shown of none
    assert "Worst task" not in write_report(both, tmp_path / "both.html").read_text()


def test_the_mean_of_runs_has_the_wider_columns_too(tmp_path):
    runs = [write_run(tmp_path / f"run-{seed}", wider=True, seed=seed) for seed in (0, 1)]
    rows = Reader(write_report(runs, tmp_path / "both.html").read_text()).cells
    assert "35\u00a0% ± 0\u00a0%" in "".join(rows) and "+15.0 → 0 ± 0" in "".join(rows)


def test_sections_and_panels_are_all_there(report):
    text = report.read_text()
    for name in ("headline", "learning", "adaptation", "paths", "updates", "settings"):
        assert f'<section id="{name}">' in text
    assert text.count("<figure>") == 4 + 4 + 6 + 5
    assert 'class="missing"' not in text
    assert "above the limit of 25" in text and "within the limit of 25" in text


def test_text_of_a_run_is_escaped(tmp_path):
    evil = '<script>alert("1")</script>'
    config = CONFIG.replace('"point-circle"', f"'{evil} $x$'")
    folder = write_run(tmp_path / "_a<b>$", config=config)
    for name in ("adaptation.csv", "paths.csv", "layout.json"):
        path = folder / name
        path.write_text(path.read_text().replace("shifted", "<i>s$t$"))
    text = write_report([folder]).read_text()
    assert "script" not in Reader(text).tags and "<i>" not in text and "<b>$" not in text
    assert "&lt;script&gt;" in text and "&lt;i&gt;s$t$" in text


def test_missing_optional_parts_are_said_in_a_line(tmp_path):
    folder = write_run(tmp_path / "run", paths=False, config="")
    write_table(folder / "metrics.csv", ["iteration", "env_steps", "seconds"], [[0, 1000, 1.5]])
    text = write_report([folder]).read_text()
    Reader(text)
    for words in ("No learning curves", "No paths", "No facts about updates"):
        assert f'<p class="missing">{words}' in text
    assert text.count("<figure>") == 4  # adaptation curves alone


def test_a_run_that_does_not_adapt(tmp_path):
    folder = write_run(tmp_path / "run", paths=False)
    path = folder / "adaptation.csv"
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *[row for row in rows if row.split(",")[2] == "0"]]))
    metrics = {tag: values for tag, values in read_run(folder).metrics.items() if not tag.startswith(("Adapt", "Mi"))}
    write_table(folder / "metrics.csv", list(metrics), np.stack(list(metrics.values()), axis=1).tolist())
    text = write_report([folder]).read_text()
    assert Reader(text).cells[2] == "11.5"
    assert "No cases of the constrained step" in text
    assert "policy</text>" in text and "before adaptation</text>" not in text


def test_tags_that_are_never_finite_do_not_break_the_page(tmp_path):
    folder = write_run(tmp_path / "run", iterations=3, paths=False)
    metrics = read_run(folder).metrics
    for tag in metrics.keys() - {"iteration", "env_steps", "seconds"}:
        metrics[tag][:] = np.nan
    write_table(folder / "metrics.csv", list(metrics), np.stack(list(metrics.values()), axis=1).tolist())
    Reader(write_report([folder]).read_text())


def test_several_runs_share_one_page_in_their_parent(tmp_path):
    runs = [write_run(tmp_path / name, paths=False, seed=seed) for seed, name in enumerate(("first", "second"))]
    path = runs[1] / "adaptation.csv"
    header, *rows = path.read_text().splitlines()
    fields = [row.split(",") for row in rows]
    raised = [",".join([*row[:3], str(float(row[3]) + 4), *row[4:]]) for row in fields]
    path.write_text("\n".join([header, *raised]))
    out = write_report(runs)
    assert out == tmp_path / "report.html"
    reader = Reader(out.read_text())
    assert len(reader.ids) == len(set(reader.ids))
    rows = [reader.cells[start : start + 7] for start in range(0, 42, 7)]
    assert [row[1] for row in rows] == ["first", "second", "mean of 2 runs"] * 2
    # Returns 41.5 and 45.5: mean 43.5, standard deviation 4/√2.
    assert [row[3] for row in rows[:3]] == ["11.5 → 41.5", "15.5 → 45.5", "13.5 → 43.5 ± 2.83"]
    assert rows[2][6] == "25\u00a0% → 100\u00a0% ± 0\u00a0%"


def test_errors_reach_the_caller(tmp_path):
    with pytest.raises(ReportError, match="no run folder"):
        write_report([])
    with pytest.raises(ReportError, match="nowhere: no such run folder"):
        write_report([tmp_path / "nowhere"])


def test_the_cases_begin_with_the_first_inner_update(tmp_path):
    """A warm-up logs no case: 8 iterations of it are left out, and every share of what is drawn sums to 1."""
    run = read_run(write_run(tmp_path / "run"))
    for case in CASES:
        run.metrics[f"Misc/Case/{case}"][:8] = np.nan
    counts, env_steps = binned_cases(run)
    assert env_steps[0] == run.metrics["env_steps"][8] and len(env_steps) == 32
    assert np.all(np.sum(list(counts.values()), axis=0) == 15)


def test_counts_and_predictions_come_from_their_columns(tmp_path):
    run = read_run(write_run(tmp_path / "run"))
    assert sum(case_counts(run).values()) == 15 * 40
    run.metrics["Train/CostPredicted"][0] = np.nan
    predicted, actual = predictions(run, "Cost")
    assert len(predicted) == len(actual) == 39
    assert np.array_equal(actual, run.metrics["Train/CostActual"][1:])


def write_held_out_paths(folder, columns=(), cells=lambda x: ()):
    """One task of split held-out, 4 steps before and after adaptation, the last one at x = 2 or 0.5."""
    rows = [["held-out", 0, stage, 0, t, x, 0.0, *cells(x)] for stage, reach in (("before", 2), ("after", 0.5))
            for t, x in enumerate([0.0, 0.1, 0.2, reach])]  # fmt: skip
    write_table(folder / "paths.csv", ["split", "task", "stage", "episode", "t", "x", "y", *columns], rows)


@pytest.mark.slow
def test_paths_count_the_unsafe_steps(tmp_path):
    folder = write_run(tmp_path / "run")
    write_held_out_paths(folder)  # an older version: what lies behind the walls is unsafe
    text = write_report([folder]).read_text()
    assert (
        "Circle of radius 1.30 m, walls at x = ±0.90 m. Unsafe: 25\u00a0% of the steps before, 0\u00a0% after" in text
    )
    (folder / "layout.json").write_text(json.dumps({}))
    text = write_report([folder]).read_text()
    assert "Unsafe: " not in text and "Nothing is known of the floor." in text
    write_held_out_paths(folder, ["unsafe"], lambda x: [int(x > 0.05)])
    assert "Unsafe: 75\u00a0% of the steps before, 75\u00a0% after" in write_report([folder]).read_text()


def test_the_floor_of_a_task_is_drawn_and_named(tmp_path):
    folder = write_run(tmp_path / "run")
    write_held_out_paths(folder)
    hazard = {"kind": "disc", "x": 0.3, "y": 0.1, "radius": 0.2, "role": "hazard"}
    goal = {"kind": "disc", "x": 1.0, "y": 0.0, "radius": 0.1, "role": "goal"}
    layout = {"held-out": [{"task": 0, "parameters": {"wall": 0.1}, "scenes": [[hazard, goal]]}]}
    (folder / "layout.json").write_text(json.dumps(layout))
    text = write_report([folder]).read_text()
    assert "1 hazard, 1 goal." in text and "Orange: hazards. Green: the goal." in text and "walls" not in text
    assert "fill: var(--cost); opacity: 0.55" in text


def test_where_every_episode_has_its_own_floor_the_first_one_is_drawn(tmp_path):
    folder = write_run(tmp_path / "run")
    layout = json.loads((folder / "layout.json").read_text())
    places = [[{"kind": "disc", "x": x, "y": 0, "radius": 0.2, "role": "hazard"}] for x in (-0.5, 0.5)]
    layout["held-out"][1] = {"task": 1, "parameters": {}, "scenes": places}
    (folder / "layout.json").write_text(json.dumps(layout))
    assert write_report([folder]).read_text().count("The first episode alone") == 1


def test_an_environment_without_positions_is_said_in_a_line(tmp_path):
    folder = write_run(tmp_path / "run")
    write_table(folder / "paths.csv", ["split", "task", "stage", "episode", "t", "x", "y", "unsafe"], [])
    text = write_report([folder]).read_text()
    assert '<p class="missing">No paths: paths.csv has no rows; the environment has no <code>position</code>' in text
    assert text.count("<figure>") == 4 + 4 + 5


@pytest.mark.parametrize("paths", [True, False])
def test_readme_picture(tmp_path, paths):
    picture = tmp_path / "picture.png"
    write_readme_picture(write_run(tmp_path / "run", paths=paths), picture)
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) < 300_000
    assert struct.unpack(">II", data[16:24]) == (1600, 704)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.123, "0.12"), (-12.34, "−12.3"), (12345.6, "12\u2009346"), (2e-6, "2.00e−06"),
     (float("nan"), "not finite")],
)  # fmt: skip
def test_number(value, text):
    assert number(value) == text


def test_small_shares_are_not_called_zero():
    assert (percent(0.0), percent(0.001), percent(0.25)) == ("0\u00a0%", "under 1\u00a0%", "25\u00a0%")
    assert share_words(float("nan")) == "no part"


def test_warnings_are_a_section_and_only_where_there_are_any(report, tmp_path):
    assert 'id="health"' not in report.read_text()
    folder = write_run(tmp_path / "broken")
    header, *rows = [line.split(",") for line in (folder / "metrics.csv").read_text().splitlines()]
    counts = ["3" if number == 7 else "0" for number in range(len(rows))]
    rows = [[*row, count] for row, count in zip(rows, counts, strict=True)]
    write_table(folder / "metrics.csv", [*header, "Metrics/NonFinite"], rows)
    text = write_report([folder]).read_text()
    assert "health" in Reader(text).ids
    assert "worlds broke" in text and "1 times, over by the end" in text and "left out from that step on" in text
