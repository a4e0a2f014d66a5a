"""Damaged run folders are named in one line; what is optional may be missing."""

import json

import numpy as np
import pytest
from synthetic_runs import CONFIG, write_run

from metacpo.report import ReportError
from metacpo.report.read import read_run
from metacpo.shapes import Disc, Ring, Wall


@pytest.fixture
def folder(tmp_path):
    return write_run(tmp_path / "run")


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_grid_places_every_row_by_task_and_step(folder):
    lines = (folder / "adaptation.csv").read_text().splitlines()
    (folder / "adaptation.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    grid = read_run(folder).adaptation.grid("held-out", "return")
    np.testing.assert_array_equal(grid[2], [12, 22, 32, 42])


def test_traces_are_sorted_by_time(folder):
    (folder / "paths.csv").write_text(
        "split,task,stage,episode,t,x,y\n"
        "held-out,0,before,0,1,0.5,1\nheld-out,0,before,0,0,0.1,2\nheld-out,0,before,1,0,9,9\n"
    )
    traces = read_run(folder).traces
    assert traces is not None and len(traces) == 2
    assert traces[0].position.tolist() == [[0.1, 2.0], [0.5, 1.0]] and traces[1].position.tolist() == [[9.0, 9.0]]
    assert traces[0].unsafe is not None and traces[1].unsafe is not None
    assert traces[0].unsafe.tolist() == [False, False] and traces[1].unsafe.tolist() == [True], "behind the wall at 0.9"


def test_layouts_of_both_formats_give_scenes(folder):
    run = read_run(folder)
    assert run.scene("held-out", 2, 1) == (Ring(0.0, 0.0, 1.3, "course"), Wall(-0.9), Wall(0.9))
    assert run.scene("held-out", 7, 0) == ()
    shapes = [[{"kind": "disc", "x": x, "y": 0, "radius": 0.5, "role": "button"}] for x in (1, 2)]
    edited = {"held-out": [{"task": 0, "parameters": {"radius": 1.0}, "scenes": shapes}, {"task": 1, "parameters": {}}]}
    (folder / "layout.json").write_text(json.dumps(edited))
    run = read_run(folder)
    scenes = [run.scene("held-out", 0, episode) for episode in (0, 1, 5)]
    assert scenes == [(Disc(x, 0.0, 0.5, "button"),) for x in (1.0, 2.0, 1.0)]
    assert run.scene("held-out", 1, 0) == ()


def test_an_empty_cell_of_metrics_is_nan(folder):
    path = folder / "metrics.csv"
    head, first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([head, first[: first.rindex(",") + 1], *rest]))
    column = read_run(folder).metrics[head.split(",")[-1]]
    assert np.isnan(column[0]) and np.isfinite(column[1:]).all()


@pytest.mark.parametrize("name", ["config.toml", "metrics.csv", "adaptation.csv"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(ReportError, match=f"{name}: missing"):
        read_run(folder)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metrics.csv", "", "not a CSV"),
        ("metrics.csv", "iteration,env_steps\n0,1\n", "no column seconds"),
        ("metrics.csv", "iteration,env_steps,seconds\n", "no rows"),
        ("metrics.csv", "iteration,env_steps,seconds\n0,1,2\n1,2\n", "line 3 has 2 cells, the header has 3"),
        ("metrics.csv", "iteration,env_steps,seconds\n0,1,soon\n", "line 2: seconds is 'soon'"),
        ("metrics.csv", "iteration,env_steps,seconds\n0,1,1e300\n", "line 2: seconds is 1e300, no number of a run"),
        ("metrics.csv", "iteration,env_steps,seconds\ninf,1,2\n", "iteration must be a whole"),
        ("metrics.csv", "iteration,env_steps,seconds,Misc/Case/SLACK\n0,1,2,inf\n", "Misc/Case/SLACK must be a whole"),
        (
            "adaptation.csv",
            "split,task,step,return,episode_cost,discounted_cost,cost_limit,satisfied\nheld-out,0,0,1,1,1,nan,1\n",
            "cost_limit must be a finite number",
        ),
        ("config.toml", "seed = ", "not valid TOML"),
        ("paths.csv", "split,task\nheld-out,0\n", "no column stage"),
        (
            "paths.csv",
            "split,task,stage,episode,t,x,y\nheld-out,inf,before,0,0,0,0\n",
            "task must be a whole",
        ),
        ("layout.json", '{"held-out": [{"wall": 0.9}]}', "not a table"),
        ("layout.json", '{"held-out": [{"task": 0, "wall": "far"}]}', "not a table"),
        ("layout.json", "{", "not a table"),
        ("layout.json", '{"held-out": [{"task": 0, "scenes": [[{"kind": "cone"}]]}]}', "not a table"),
        ("layout.json", '{"held-out": [{"task": 0, "wall": 1e400}]}', "not a table"),
        ("paths.csv", "split,task,stage,episode,t,x,y,unsafe\nheld-out,0,before,0,0,0,0,2\n", "unsafe must be 0 or 1"),
    ],
)
def test_a_damaged_file_is_named_in_one_line(folder, name, text, words):
    (folder / name).write_text(text)
    with pytest.raises(ReportError, match=words) as caught:
        read_run(folder)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_satisfied_is_zero_or_one(folder):
    edit(folder / "adaptation.csv", "25.0,0\n", "25.0,2\n")
    with pytest.raises(ReportError, match=r"adaptation\.csv: satisfied must be 0 or 1"):
        read_run(folder)


def test_binary_rubbish_is_named(folder):
    (folder / "adaptation.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match=r"adaptation\.csv: cannot be read"):
        read_run(folder)


def test_settings_tolerate_missing_keys(folder):
    run = read_run(folder)
    assert run.setting("meta.steps") == 3 and run.setting("meta.steps.deeper", "none") == "none"
    assert run.limited_cost == "episode_cost" and run.last_step == 3
    (folder / "config.toml").write_text(CONFIG.replace('"episode"', '"discounted"'))
    assert read_run(folder).limited_cost == "discounted_cost"
