"""Whatever a run folder holds: `adapt` and `report` succeed, or say one line and leave nothing behind."""

import gc
import hashlib
import os
import shutil
import tomllib
from pathlib import Path

import pytest
import tomli_w
from fuzzing import NAMES, cases, damaged, ends_well, junk, put
from hypothesis import given
from hypothesis import strategies as st
from report.synthetic_runs import write_run

from metacpo.adaptation import evaluate as evaluation
from metacpo.adaptation import tables
from metacpo.config.schema import Config
from metacpo.report import ReportError, page
from metacpo.report.read import read_run
from metacpo.training import checkpoint
from metacpo.training.checksums import SUMS
from metacpo.training.setup import build
from metacpo.training.state import init_state

# Orbax leaves event loops and coroutines behind where a checkpoint cannot be read; they are no part of what is tested.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(autouse=True)
def collected():
    """What Orbax left is collected here, and not in the test of another file."""
    yield
    gc.collect()


TABLES = ("config.toml", "metrics.csv", "adaptation.csv", "paths.csv", "layout.json")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run folder with everything in it, small."""
    folder = write_run(tmp_path_factory.mktemp("fuzz") / "run", iterations=6)
    config = Config.preset("bandit")
    config.save(folder / "config.toml")
    checkpoint.save(folder, init_state(build(config), 0))
    lines = (folder / "paths.csv").read_text().splitlines()
    (folder / "paths.csv").write_text("\n".join(lines[:40]))
    return folder


@pytest.fixture
def adapting(monkeypatch):
    """`adapt` ends when the run is opened."""
    monkeypatch.setattr(evaluation, "evaluate", lambda *args, **options: "the result")
    monkeypatch.setattr(tables, "table", lambda result, trained: result)
    monkeypatch.setattr(tables, "while_adapting", lambda result: [])


def copied(whole: Path, tmp_path: Path) -> Path:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    return Path(shutil.copytree(whole, tmp_path / "run"))


def other(path: Path, kind: str) -> None:
    """Something else in a file's place."""
    path.unlink()
    {
        "nothing": lambda: None,
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "link out": lambda: path.symlink_to("/dev/zero"),
        "link to nothing": lambda: path.symlink_to("nothing"),
        "link to itself": lambda: path.symlink_to(path.name),
    }[kind]()


OTHERS = st.sampled_from(["nothing", "folder", "pipe", "link out", "link to nothing", "link to itself"])


@st.composite
def harm(draw, folder: Path) -> tuple[str, bytes | str]:
    """(a file of the folder, what is to stand there): other bytes, or the name of something that is no file."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    name = draw(st.sampled_from(names))
    return name, draw(OTHERS if draw(st.integers(0, 3)) == 0 else damaged((folder / name).read_bytes()))


def inflict(folder: Path, name: str, what: bytes | str) -> None:
    path = folder / name
    if isinstance(what, str):
        other(path, what)
    else:
        path.write_bytes(what)


@cases(60)
@given(data=st.data())
def test_adapt_with_any_damage(whole, adapting, tmp_path, data):
    name, what = data.draw(harm(whole))
    folder = copied(whole, tmp_path)
    inflict(folder, name, what)
    ends_well(["adapt", str(folder)], tmp_path)


@cases(60)
@given(data=st.data())
def test_adapt_with_damage_that_the_checksums_agree_with(whole, adapting, tmp_path, data):
    """As a stranger would make it: then the checkpoint's own reader has to refuse what it cannot read."""
    folder = copied(whole, tmp_path)
    (saved,) = (folder / "checkpoints").iterdir()
    name, what = data.draw(harm(saved))
    inflict(saved, name, what)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(saved)}\n"
        for path in sorted(saved.rglob("*"))
        if path.is_file() and path.name != SUMS and not path.is_symlink()
    ]
    if (saved / SUMS).is_file():
        (saved / SUMS).write_text("".join(lines))
    ends_well(["adapt", str(folder)], tmp_path)


@cases(60)
@given(st.lists(st.tuples(st.sampled_from(NAMES), junk), min_size=1, max_size=3))
def test_adapt_with_any_settings(whole, adapting, tmp_path, changes):
    folder = copied(whole, tmp_path)
    tree = tomllib.loads((folder / "config.toml").read_text())
    for place, value in changes:
        put(tree, place, value)
    (folder / "config.toml").write_text(tomli_w.dumps(tree), encoding="utf-8")
    ends_well(["adapt", str(folder)], tmp_path)


@pytest.mark.slow
@cases(1000)
@given(data=st.data())
def test_any_table(whole, tmp_path, data):
    """Read, but not drawn: drawing takes a second."""
    name = data.draw(st.sampled_from(TABLES))
    folder = copied(whole, tmp_path)
    inflict(folder, name, data.draw(OTHERS | damaged((whole / name).read_bytes())))
    try:
        read_run(folder)
    except ReportError as error:
        assert str(folder) in str(error)


NUMBERS = st.sampled_from(
    ["nan", "inf", "-inf", "1e308", "-1e308", "1e-320", "0", "-1", "1e9", "", " ", "0.5", "1e400"]
)


@pytest.mark.slow
@cases(25)
@given(data=st.data())
def test_report_of_any_numbers(whole, tmp_path, data):
    """Cells of a table replaced by numbers that are hard to draw."""
    name = data.draw(st.sampled_from(["metrics.csv", "adaptation.csv", "paths.csv"]))
    folder = copied(whole, tmp_path)
    rows = [line.split(",") for line in (folder / name).read_text().splitlines()]
    for _ in range(data.draw(st.integers(1, 4))):
        column = data.draw(st.integers(0, len(rows[0]) - 1))
        for row in rows[1:] if data.draw(st.booleans()) else [data.draw(st.sampled_from(rows[1:]))]:
            row[column] = data.draw(NUMBERS)
    (folder / name).write_text("\n".join(map(",".join, rows)))
    ends_well(["report", str(folder)], tmp_path, ["run/report.html"])


def test_a_report_that_fails_leaves_the_old_one(whole, tmp_path, monkeypatch):
    folder = copied(whole, tmp_path)
    (folder / "report.html").write_text("old")
    monkeypatch.setattr(page, "render", lambda runs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        page.write_report([folder])
    monkeypatch.setattr(page, "render", lambda runs: "\ud800")  # no UTF-8: fails while it is written
    with pytest.raises(UnicodeEncodeError):
        page.write_report([folder])
    assert (folder / "report.html").read_text() == "old" and not list(folder.glob("*.part*"))
