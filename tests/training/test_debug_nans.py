"""`--debug-nans`: a run stops where a number is not finite, and one command repeats that iteration."""

import csv

import jax.numpy as jnp
import pytest

from metacpo.cli import main as cli
from metacpo.config.schema import Config
from metacpo.training import checkpoint, loop

CONFIG = Config.preset(
    "bandit",
    iterations=5,
    meta={"tasks": 3, "steps": 1, "episodes": 8},
    adaptation={"steps": 1, "episodes": 8, "tasks": 2},
    checkpoint_every=1,
)


@pytest.fixture
def breaking(monkeypatch, tmp_path):
    """The bandit, whose third meta-iteration says that worlds broke, whenever it is run from its state."""
    monkeypatch.setenv("METACPO_CACHE_DIR", str(tmp_path / "cache"))
    compile_iteration = loop.compile_iteration

    def compile_with_fault(setup, state, console):
        iterate = compile_iteration(setup, state, console)

        def run(state):
            after, row = iterate(state)
            struck = state.iteration == 2
            return after, row | {"Metrics/NonFinite": jnp.where(struck, 4.0, row["Metrics/NonFinite"])}

        return run

    monkeypatch.setattr(loop, "compile_iteration", compile_with_fault)


def iterations(folder) -> list[int]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["iteration"]) for row in csv.DictReader(file)]


@pytest.mark.slow
def test_a_dump_repeats_its_iteration_by_one_command(breaking, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    CONFIG.save(tmp_path / "small.toml")
    assert cli.main(["train", "small.toml", "--run-dir", "run", "--debug-nans"]) == 1
    line = capsys.readouterr().err
    command = "metacpo resume run/dump-3 --debug-nans"
    assert line == f"metacpo: meta-iteration 3: not finite: Metrics/NonFinite 4; repeat it with: {command}\n"

    dump = tmp_path / "run" / "dump-3"
    assert {path.name for path in dump.iterdir()} == {"config.toml", "metrics.csv", "checkpoints", "README"}
    assert checkpoint.latest(dump) == 2
    readme = (dump / "README").read_text()
    assert command in readme and "Metrics/NonFinite 4: Worlds left out" in readme
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()

    for _ in range(2):  # as often as one likes
        assert cli.main(command.split()[1:]) == 1
        assert capsys.readouterr().err == line
        assert iterations(dump) == [1, 2, 3]
        again = (dump / "metrics.csv").read_text().splitlines()
        assert [row.split(",")[3:] for row in again] == [row.split(",")[3:] for row in rows]
    assert not list(dump.glob("dump-*")) and not list((tmp_path / "run").glob("*.part"))


@pytest.mark.slow
def test_without_the_option_training_goes_on_and_warns(breaking, tmp_path, capsys):
    assert loop.train(CONFIG, tmp_path / "run").finished
    assert capsys.readouterr().out.count("warning, meta-iteration 3: worlds broke") == 1
    assert not list((tmp_path / "run").glob("dump-*"))
