"""One evaluation for all tests of this folder: its program takes long to compile."""

import numpy as np
import pytest
from untrained import CONFIG, SPLITS

from metacpo.adaptation.evaluate import evaluate
from metacpo.training import checkpoint
from metacpo.training.metrics import MetricsWriter
from metacpo.training.runs import open_run
from metacpo.training.setup import build
from metacpo.training.state import init_state


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A run whose policy has not learned anything: enough to be opened, evaluated and reported."""
    folder = tmp_path_factory.mktemp("run")
    CONFIG.save(folder / "config.toml")
    checkpoint.save(folder, init_state(build(CONFIG), CONFIG.seed))
    with MetricsWriter(folder, ["Metrics/EpRet"]) as writer:
        writer.write(1, 100, 1.0, {"Metrics/EpRet": np.asarray(1.0)})
    return open_run(folder)


@pytest.fixture(scope="session")
def result(run):
    return evaluate(run.setup, run.state, CONFIG.adaptation, SPLITS, seed=0)
