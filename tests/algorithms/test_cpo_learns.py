"""CPO alone, as published: it reaches the limit and keeps it. With the mistake of published code it does not."""

import dataclasses

import jax
import numpy as np
import pytest

from metacpo.config.schema import Config
from metacpo.training.iteration import meta_iteration
from metacpo.training.setup import build
from metacpo.training.state import init_state

from .wrong import WrongSign

LIMIT = 25.0
ITERATIONS = 100


def costs_of_training(step=None, seed=0) -> tuple[np.ndarray, np.ndarray]:
    """Return and cost per episode of every iteration of CPO on Point-Circle's reference task."""
    config = Config.preset(
        "point-circle",
        algorithm="cpo",
        warmup={"iterations": 0},
        meta={"tasks": 1, "episodes": 80},
        # A step raises the cost by more than it says as long as the policy learns: aimed at the limit itself, the cost
        # settles 6 to 22 % above it. docs/algorithms.md has every seed and target that was run.
        estimation={"confidence": 0.95},  # about 0.8 of the limit
        outer={"max_kl": 0.02, "damping": 0.3, "objective_kl_fraction": 0.2},
    )
    setup = build(config)
    only = setup.tasks.make({}).params
    tasks = dataclasses.replace(setup.tasks, draw={"train": lambda key: only})
    rule = setup.algorithm.outer
    outer = rule if step is None else dataclasses.replace(rule, step=step)
    algorithm = dataclasses.replace(setup.algorithm, outer=outer)
    setup = dataclasses.replace(setup, tasks=tasks, algorithm=algorithm)
    step = jax.jit(meta_iteration, static_argnums=0)
    state, rows = init_state(setup, seed), []
    for _ in range(ITERATIONS):
        state, row = step(setup, state)
        rows.append((float(row["Metrics/EpRet"]), float(row["Metrics/EpCost"])))
    earned, cost = np.array(rows).T
    return earned, cost


@pytest.mark.slow
def test_cpo_reaches_the_limit_and_keeps_it():
    earned, cost = costs_of_training()
    assert abs(cost[-20:].mean() - LIMIT) <= 0.1 * LIMIT
    assert earned[-20:].mean() >= 35


@pytest.mark.slow
def test_cpo_with_the_sign_of_published_code_does_not():
    """Same data, line search and region: what differs is r in the dual."""
    earned, cost = costs_of_training(WrongSign())
    assert abs(cost[-20:].mean() - LIMIT) > 0.1 * LIMIT
    assert earned[-20:].mean() < 35
