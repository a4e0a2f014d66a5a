"""What learns: a warm-up is the same learner without inner steps and with settings of its own."""

import dataclasses

from metacpo.config import Config, build
from metacpo.learner import warmup


def test_a_warmup_differs_only_where_its_settings_say():
    config = Config.preset("point-circle")
    learner, settings = build(config), config.warmup
    first = warmup(learner, settings)
    assert (first.meta.steps, first.meta.tasks, first.meta.episodes) == (0, settings.tasks, settings.episodes)
    region, before = first.algorithm.outer.region, learner.algorithm.outer.region
    assert (region.max_kl, region.damping) == (settings.max_kl, settings.damping)
    aims = (first.estimation.cost_target, first.estimation.cost_margin)
    assert aims == (settings.cost_target, settings.cost_margin) == (1.0, 0.0)
    undone = dataclasses.replace(first, meta=learner.meta, algorithm=learner.algorithm, estimation=learner.estimation)
    assert undone == learner
    # Everything else in the three sections stays too.
    outer = dataclasses.replace(
        first.algorithm.outer, region=dataclasses.replace(region, max_kl=before.max_kl, damping=before.damping)
    )
    assert dataclasses.replace(first.algorithm, outer=outer) == learner.algorithm
    aims = dict(cost_target=learner.estimation.cost_target, cost_margin=learner.estimation.cost_margin)
    assert dataclasses.replace(first.estimation, **aims) == learner.estimation
