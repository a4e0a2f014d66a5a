"""What learns and one compiled meta-iteration of it, in the order of the paper's pseudocode."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.algorithms.finite import all_finite
from metacpo.algorithms.inner_loop import Sampler, run_inner_loop
from metacpo.algorithms.meta_update import meta_update
from metacpo.envs.tasks import Task
from metacpo.estimation import Batch, make_batch, shared_cost_values
from metacpo.policies import Normaliser
from metacpo.rollout import Trajectory, rollout
from metacpo.runtime.devices import together
from metacpo.training.diagnostics import (
    adapted_metrics,
    fault_metrics,
    inner_metrics,
    inner_state_metrics,
    outer_metrics,
    outer_predictions,
)
from metacpo.training.normalising import drift, merged
from metacpo.training.setup import TrainingSetup
from metacpo.training.state import TrainState


def meta_iteration(setup: TrainingSetup, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
    """One meta-iteration: tasks ~ p(T), K inner updates each, one outer update. Pure; jit it once.

    Returns the next state and the row of metrics.csv. A non-finite update leaves the parameters as they were, and the
    row counts it.
    """
    key, task_key, loop_key = jax.random.split(state.key, 3)
    meta, policy = setup.meta, setup.policy
    tasks = setup.tasks.sample_batch(task_key, meta.tasks)
    sample = sampler(setup, state.normaliser, meta.episodes)
    loop = run_inner_loop(policy, state.theta, state.inner_state, sample, tasks, loop_key, meta, setup.algorithm.inner)
    theta, inner_state, outer = meta_update(policy, state.theta, state.inner_state, loop, setup.algorithm)
    finite = all_finite((theta, inner_state))
    theta, inner_state = jax.tree.map(
        partial(jnp.where, finite), (theta, inner_state), (state.theta, state.inner_state)
    )
    normaliser, lost = merged(state.normaliser, loop)
    metrics = adapted_metrics(setup, loop, tasks) | inner_metrics(setup, loop)
    metrics |= outer_metrics(outer) | outer_predictions(setup, loop, outer.step)
    metrics |= fault_metrics(loop, outer.step, finite, lost)
    metrics |= inner_state_metrics(setup, inner_state)
    metrics["Train/PolicyStd"] = jnp.mean(policy(theta, loop.first.z).std)
    metrics["Misc/NormaliserDrift"] = drift(state.normaliser, loop)
    return TrainState(theta, inner_state, normaliser, key, state.iteration + 1), metrics


def warmup_iteration(setup: TrainingSetup, state: TrainState) -> tuple[TrainState, dict[str, Array]]:
    """`meta_iteration` of a warm-up's setup, under a name of its own where compilations are counted."""
    return meta_iteration(setup, state)


def sampler(setup: TrainingSetup, normaliser: Normaliser, episodes: int) -> Sampler:
    """M tasks, φ [M, n], keys ↦ a batch of `episodes` episodes of φ_i on task i, all worlds in one physics call."""

    estimation, shared = setup.estimation, setup.algorithm.global_critic

    def roll(phi: Float[Array, " n"], task: Task, key: Key[Array, ""]):
        return rollout(setup.env, setup.policy, phi, normaliser, task, key, episodes)

    def shared_values(trajectories: Trajectory):
        return shared_cost_values(trajectories, normaliser, estimation)

    def sample(tasks: Task, phi: Float[Array, "M n"], keys: Key[Array, " M"]):
        trajectories = jax.vmap(roll)(phi, tasks, keys)
        values = together(shared_values, trajectories) if shared else None
        estimate = jax.vmap(lambda D, limit, V: make_batch(D, normaliser, limit, estimation, V))
        batch, stats = estimate(trajectories, tasks.cost_limit, values)
        return (batch if setup.algorithm.reads_costs else unconstrained(batch)), stats

    return sample


def unconstrained(batch: Batch) -> Batch:
    """The same data without its constraints: m = 0."""
    names = ("cost_advantage", "c", "margin", "outer_margin")
    none = [getattr(batch, name)[..., :0] for name in names]
    return eqx.tree_at(lambda b: [getattr(b, name) for name in names], batch, none)
