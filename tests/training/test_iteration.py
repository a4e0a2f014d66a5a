"""What learns: a warm-up is the same learner without inner steps and with settings of its own."""

import dataclasses

from metacpo.config.schema import Config
from metacpo.training.setup import build, warmup


def test_a_warmup_differs_only_where_its_settings_say():
    config = Config.preset("point-circle")
    setup, settings = build(config), config.warmup
    first = warmup(setup, settings)
    assert (first.meta.steps, first.meta.tasks, first.meta.episodes) == (0, settings.tasks, settings.episodes)
    region, before = first.algorithm.outer.region, setup.algorithm.outer.region
    assert (region.max_kl, region.damping) == (settings.max_kl, settings.damping)
    assert first.estimation.outer_confidence == settings.confidence == 0.5  # the limit itself
    undone = dataclasses.replace(first, meta=setup.meta, algorithm=setup.algorithm, estimation=setup.estimation)
    assert undone == setup
    # Everything else in the three sections stays too.
    outer = dataclasses.replace(
        first.algorithm.outer, region=dataclasses.replace(region, max_kl=before.max_kl, damping=before.damping)
    )
    assert setup.algorithm.per_task and not first.algorithm.per_task  # plain CPO on pooled tasks
    assert dataclasses.replace(first.algorithm, outer=outer, per_task=True) == setup.algorithm
    confidence = setup.estimation.outer_confidence
    assert dataclasses.replace(first.estimation, outer_confidence=confidence) == setup.estimation
