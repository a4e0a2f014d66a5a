"""A run folder from a stranger: opening it runs nothing, reads nothing else and writes nowhere else."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_imports import imported

import metacpo
from metacpo.cli import main as cli
from metacpo.config.schema import Config
from metacpo.runtime.references import source_path
from metacpo.training import checkpoint, runs
from metacpo.training.setup import build
from metacpo.training.state import init_state

# Opens a run again and again and says what its process did meanwhile that runs something, loads a library or connects.
# In a process of its own: an audit hook cannot be taken away, and Orbax leaves torn coroutines behind.
CHILD = """
import hashlib, sys
from pathlib import Path
from metacpo.cli import main as cli
from metacpo.training import runs
ACTS = ("pickle.find_class", "marshal.load", "os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.Popen",
        "ctypes.dlopen", "socket.connect", "webbrowser.open")
folder, evil = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
saved = folder / "checkpoints" / "0"
seen, codes = [], []
files = [path for path in sorted(saved.rglob("*")) if path.is_file() and path.name != "SHA256SUMS"]
def agree():
    sums = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(saved)}\\n" for path in files]
    (saved / "SHA256SUMS").write_text("".join(sums))
agree()
runs.open_run(folder)  # whatever is imported once is imported now
sys.addaudithook(lambda event, args: seen.append(event) if event in ACTS else None)
for torn in (None, *files):
    whole = torn and torn.read_bytes()
    if torn:
        torn.write_bytes(evil)
    agree()
    codes.append(cli.main(["adapt", str(folder), "--steps", "-1"]))  # refused once the run is open
    if torn:
        torn.write_bytes(whole)
print(seen, codes)
"""
BANDIT = Config.preset("bandit")


class Evil:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.fixture
def folder(tmp_path) -> Path:
    """A run that opens."""
    folder = tmp_path / "runs" / "theirs"
    folder.mkdir(parents=True)
    BANDIT.save(folder / "config.toml")
    checkpoint.save(folder, init_state(build(BANDIT), 0))
    return folder


def test_pickles_in_a_run_folder_are_never_read(folder, tmp_path):
    """Every file of the checkpoint in turn is a pickle, beside pickles and an array of objects; checksums agree."""
    saved = folder / "checkpoints" / "0"
    evil = pickle.dumps(Evil(tmp_path / "ran"))
    for place in (tmp_path / "evil", saved / "state.pkl", saved / "d" / "0.npy", saved / "checkpoint.msgpack"):
        place.write_bytes(evil)
    np.save(saved / "objects.npy", np.array([Evil(tmp_path / "ran")], dtype=object), allow_pickle=True)
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "evil")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    seen, codes = done.stdout.strip().split("] [")
    assert seen == "[" and set(codes.strip("]").split(", ")) <= {"1", "2"} and codes.startswith("2")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("setting", ["env", "algorithm"])
@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("RUN/theirs.py:env", "lies in the run folder"),
        ("RUN/../theirs/theirs.py:env", "lies in the run folder"),
        ("../beside.py:env", "not an absolute path"),  # an archive may hold more than the run folder
        ("beside.py:env", "not an absolute path"),
        ("theirs:env", "lies in the run folder"),
        ("runs.theirs.theirs:env", "lies in the run folder"),  # folders without __init__.py are packages
        ("antigravity:fly", "module of Python itself"),  # opens a browser when it is imported
        ("idlelib.idle:x", "module of Python itself"),
        ("os:abort", "module of Python itself"),
        ("__main__:x", "has no attribute"),
    ],
)
def test_code_that_came_with_a_run_is_never_run(folder, tmp_path, monkeypatch, setting, reference, says, capsys):
    for place in (folder / "theirs.py", folder.parent / "beside.py", tmp_path / "theirs.py"):
        place.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(folder)
    text = (folder / "config.toml").read_text()
    was = f'{setting} = "{getattr(BANDIT, setting)}"'
    assert was in text
    theirs = f'{setting} = "{reference.replace("RUN", str(folder))}"'
    (folder / "config.toml").write_text(text.replace(was, theirs))
    assert cli.main(["adapt", str(folder)]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ("RUN/theirs.py:Network", "network: RUN/theirs.py lies in the run folder"),
        ("beside.py:Network", "network: 'beside.py' is not an absolute path"),
        ("theirs:Network", "network: RUN/theirs.py lies in the run folder"),
        ("os:abort", "network: 'os' is a module of Python itself"),
        ("jax:clear_caches", "network: jax:clear_caches: is no class of Equinox modules but function"),
    ],
)
def test_a_network_that_came_with_a_run_is_never_run(folder, tmp_path, monkeypatch, network, says, capsys):
    for place in (folder / "theirs.py", folder.parent / "beside.py"):
        place.write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()")
    monkeypatch.chdir(folder.parent)
    monkeypatch.syspath_prepend(folder)
    config = Config.preset("bandit", network=network.replace("RUN", str(folder)))
    config.save(folder / "config.toml")
    assert cli.main(["adapt", str(folder)]) in (1, 2)
    err = capsys.readouterr().err
    assert says.replace("RUN", str(folder.resolve())) in err and err.count("\n") == 1
    assert not (tmp_path / "ran").exists()


def test_where_code_lies_is_found_without_running_it(tmp_path, monkeypatch):
    (tmp_path / "space" / "package").mkdir(parents=True)
    (tmp_path / "space" / "package" / "__init__.py").write_text("1 / 0")
    (tmp_path / "space" / "package" / "part.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    assert source_path("space.package.part:env") == tmp_path / "space" / "package" / "part.py"
    assert source_path("space.package.none:env") == tmp_path / "space" / "package" / "__init__.py"
    assert source_path("space:env") is None and source_path(".space:env") is None and source_path("__main__:x") is None


LINKED = (
    "config.toml",
    "metrics.csv",
    "adaptation.csv",
    "report.html",
    "report.part.html",
    "tb",
    "checkpoints/9",
    "render",
)


@pytest.mark.parametrize("name", LINKED)
def test_links_out_of_a_run_folder_are_refused(folder, tmp_path, name, capsys):
    """They would show a file of the user's in a report, or write over it."""
    mine = tmp_path / "mine"
    mine.write_text("secret")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(os.path.relpath(mine, (folder / name).parent))
    for verb in ("adapt", "evaluate", "resume", "render", "report"):
        assert cli.main([verb, str(folder)]) == 1
        assert f"{folder / name}: is a link that leads out of the run folder" in capsys.readouterr().err
    assert mine.read_text() == "secret"


def test_a_link_to_the_run_folder_and_links_within_it_are_fine(folder, tmp_path):
    (folder / "newest").symlink_to("checkpoints/0")
    (tmp_path / "short").symlink_to(folder)
    assert int(runs.open_run(tmp_path / "short").state.iteration) == 0


@pytest.mark.slow
def test_a_policy_that_fills_the_memory_is_not_made(folder, capsys):
    for hidden in ("[1000000000, 1000000000]", "[" + "1, " * 60_000 + "1]"):
        text = (folder / "config.toml").read_text().splitlines()
        start = next(i for i, line in enumerate(text) if line.startswith("hidden"))
        end = next(i for i, line in enumerate(text[start:], start) if line.endswith("]"))
        text[start : end + 1] = [f"hidden = {hidden}"]
        (folder / "config.toml").write_text("\n".join(text))
        assert cli.main(["adapt", str(folder)]) == 2
        assert "hidden: " in capsys.readouterr().err


def test_a_terminal_is_not_obeyed(folder, capsys):
    """The names in a stranger's settings are shown as text."""
    (folder / "config.toml").write_text('"\\u001b]0;mine\\u0007\\u202e" = 1\n')
    assert cli.main(["adapt", str(folder)]) == 1
    assert r"\x1b]0;mine\x07\u202e: unknown setting" in capsys.readouterr().err


def test_no_module_of_ours_imports_what_runs_data():
    package = Path(metacpo.__file__).parent
    found = {name.split(".")[0] for path in package.rglob("*.py") for name in imported(path)}
    assert not found & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "runpy"}
