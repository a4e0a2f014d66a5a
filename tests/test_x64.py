"""Everything runs where JAX has 64 bits, and gives the same numbers: the library computes in float32 all the same."""

import csv
import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
import jax
from metacpo.cli.main import entry
from metacpo.config.schema import Config
from metacpo.training.loop import train

_, x64, folder, *presets = sys.argv
assert jax.config.jax_enable_x64 == (x64 == "1")
small = dict(meta={"tasks": 2, "episodes": 4, "steps": 1}, iterations=2, warmup={"iterations": 1, "tasks": 2})
if len(presets) == 1:
    small |= dict(iterations=1, warmup={"iterations": 0})
for preset in presets:
    train(Config.preset(preset, **small), f"{folder}/{preset}")
sys.argv[1:] = ["doctor"]
entry()
"""


@pytest.fixture
def run(tmp_path):
    """A doctor and short trainings in a process of their own; its words, and the rows of metrics.csv."""

    def start(x64: str, *presets: str):
        env = os.environ | {"JAX_ENABLE_X64": x64, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
        command = [sys.executable, "-W", "error", "-c", PROGRAM, x64, str(tmp_path / x64), *presets]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
        rows = []
        for preset in presets:
            with (tmp_path / x64 / preset / "metrics.csv").open(newline="") as file:
                rows += [{tag: cell for tag, cell in row.items() if tag != "seconds"} for row in csv.DictReader(file)]
        return done.stdout, rows

    return start


@pytest.mark.slow
def test_a_doctor_and_a_training_with_64_bits(run):
    words, rows = run("1", "bandit")
    assert "works: 100 steps" in words and len(rows) == 1
    assert rows[0]["Meta/Accepted"] == "1.0" and rows[0]["Meta/NonFinite"] == "0.0"


@pytest.mark.slow
def test_64_bits_change_no_number(run):
    """Two iterations each, one of them a warm-up."""
    presets = "bandit", "navigation"
    assert run("1", *presets)[1] == run("0", *presets)[1]
