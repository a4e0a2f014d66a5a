"""A short run of the benchmark that looks for growth: 2,000 iterations are in benchmarks/long_run.csv."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "long_run.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_training_does_not_grow(tmp_path):
    command = [sys.executable, SCRIPT, "--iterations", "300", "--every", "100", "--out", tmp_path / "short.csv"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "short.csv").read_text().splitlines()) == 4
