"""The example of one's own algorithm: from outside the package, by the command line."""

import csv
import sys
import tomllib
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.registry import ALGORITHMS
from metacpo.cli import main as cli
from metacpo.config.schema import Config, ConfigError
from metacpo.runtime.references import load
from metacpo.training.setup import build, composed

FOLDER = Path(__file__).parents[2] / "examples" / "own_algorithm"
REFERENCE = f"{FOLDER}/meta_p3o.py:meta_p3o"
SMALL = "--iterations 2 --meta.tasks 2 --meta.steps 1 --meta.episodes 8 --adaptation.tasks 2 --adaptation.steps 1"


@pytest.fixture(autouse=True)
def registered_for_one_test():
    """A module is imported once, and registers its algorithm then: both are undone."""
    yield
    ALGORITHMS.pop("meta-p3o", None)
    for name in [name for name in sys.modules if name.endswith("meta_p3o.py")]:
        del sys.modules[name]


@pytest.mark.slow
def test_the_command_line_trains_it_and_opens_its_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(FOLDER / "meta_p3o.toml"), *SMALL.split(), "--run-dir", "run"]) == 0
    saved = tomllib.loads((tmp_path / "run" / "config.toml").read_text())
    assert saved["algorithm"] == REFERENCE and saved["rule"]["penalty"] == 20.0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 and float(rows[-1]["Meta/Accepted"]) in (0, 1)
    assert float(rows[0]["Misc/Lambda"]) > 0 and "Misc/Nu" not in rows[0]  # TRPO's step has a λ and no ν
    assert cli.main(["adapt", "run", "--steps", "-1"]) == 2  # it opens; what is refused is the option
    assert "adaptation.steps: -1" in capsys.readouterr().err


def test_its_penalty_weighs_what_is_broken_alone():
    penalty = load(f"{FOLDER}/meta_p3o.py:ExactPenalty", "algorithm")(7.0)
    weights, _ = penalty(jnp.array([-0.5, 0.0, 0.2]), InnerState.init(3))
    assert float(weights.reward) == 1
    np.testing.assert_array_equal(weights.costs, [0, 0, 7])


def test_its_settings_are_checked():
    config = Config.preset("bandit", algorithm=REFERENCE, rule={"penalty": 3.0})
    algorithm = build(config).algorithm
    assert algorithm.inner.objective.price == 3.0 and algorithm.inner.region == config.inner  # pyright: ignore
    with pytest.raises(ConfigError, match=r"algorithm\.inner\.objective\.price: 0\.0 is not in \(0, inf\)"):
        composed(Config.preset("bandit", algorithm=REFERENCE, rule={"penalty": 0.0}), 1)
    with pytest.raises(ConfigError, match=r"rule\.tolerance: 0\.5 is not for algorithm '.*'; allowed with safe-meta"):
        composed(Config.preset("bandit", algorithm=REFERENCE, rule={"tolerance": 0.5}), 1)
