"""Every one of several constraints in a row of metrics.csv."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from metacpo.envs.tasks import Task
from metacpo.estimation.batch import EpisodeStats
from metacpo.training.diagnostics import constraint_metrics
from metacpo.training.tags import describe

ONES = jnp.ones(3)
COST = jnp.asarray([[1.0, 10.0], [3.0, 20.0], [100.0, 1000.0]])
STATS = EpisodeStats(ONES, COST, COST / 2, ONES, jnp.asarray([5.0, 5.0, 0.0]), ONES, ONES, ONES, COST, COST)
TASKS = Task(jnp.asarray([[2.0, 50.0], [2.0, 50.0], [5.0, 50.0]]), {})


def test_every_constraint_by_name_over_the_tasks_that_have_a_valid_step():
    row = constraint_metrics(("speed", "heat"), STATS, TASKS)
    expected = {
        "Metrics/EpCost/speed": 2.0,
        "Metrics/EpCost/heat": 15.0,
        "Metrics/DiscountedCost/speed": 1.0,
        "Metrics/DiscountedCost/heat": 7.5,
        "Metrics/CostLimit/speed": 3.0,
        "Metrics/CostLimit/heat": 50.0,
    }
    assert row.keys() == expected.keys() and all(describe(tag) for tag in row)
    for tag, value in expected.items():
        np.testing.assert_allclose(row[tag], value, rtol=1e-6)


def test_one_constraint_has_no_columns_more():
    one = dataclasses.replace(STATS, episode_cost=COST[:, :1], discounted_cost=COST[:, :1])
    assert constraint_metrics(("speed",), one, TASKS) == {}
