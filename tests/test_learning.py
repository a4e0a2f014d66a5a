"""Learning runs: what the README promises of the presets, from the first iteration to the last adapted task."""

import numpy as np
import pytest

from metacpo import training
from metacpo.config import Config
from metacpo.evaluation import evaluate


@pytest.mark.slow
def test_point_circle_is_good_and_safe_after_five_updates(tmp_path):
    config = Config.preset("point-circle")
    run = training.train(config, tmp_path / "run")
    rows = evaluate(run.learner, run.state, config.adaptation, ("held-out", "shifted"), seed=0).rows
    last = {split: [r for r in rows if r.split == split and r.step == 5] for split in ("held-out", "shifted")}
    assert len(last["held-out"]) == len(last["shifted"]) == 20
    assert np.mean([row.episode_return for row in last["held-out"]]) >= 30
    assert np.mean([row.satisfied for row in last["held-out"]]) >= 0.9
    assert np.mean([row.satisfied for row in last["shifted"]]) >= 0.8
    # The updates are what does it: the meta-policy itself earns less, or breaks the limit on more tasks.
    first = [row for row in rows if row.split == "held-out" and row.step == 0]
    better_return = np.mean([r.episode_return for r in last["held-out"]]) > np.mean([r.episode_return for r in first])
    assert better_return or sum(r.satisfied for r in last["held-out"]) > sum(r.satisfied for r in first)
