"""The example of one's own robot: from outside the package, by the command line, and it learns."""

import csv
from pathlib import Path

import numpy as np
import pytest

from metacpo.cli import main as cli

FOLDER = Path(__file__).parents[2] / "examples" / "own_robot"


def test_the_crane_is_ready_to_train(capsys):
    assert cli.main(["check-env", f"{FOLDER}/crane.py:env"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("crane.py:env: ready to train")


@pytest.mark.slow
def test_the_crane_learns_to_be_gentle(tmp_path, monkeypatch):
    """metacpo train, from another folder: the updates bring tasks within their limits at little loss of return."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", str(FOLDER / "crane.toml"), "--run-dir", "run"]) == 0
    with (tmp_path / "run" / "metrics.csv").open(newline="") as file:
        untrained = float(next(csv.DictReader(file))["Metrics/EpRet"])
    with (tmp_path / "run" / "adaptation.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "held-out"]
    first, last = ([row for row in rows if row["step"] == step] for step in ("0", "3"))

    def mean(group, name):
        return np.mean([float(row[name]) for row in group])

    assert untrained < 0.5 and mean(last, "return") >= 2.0
    assert mean(last, "satisfied") >= 0.8 > mean(first, "satisfied")
    assert mean(last, "episode_cost") <= 0.7 * mean(first, "episode_cost")
