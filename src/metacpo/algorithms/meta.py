"""The two loops of a meta-iteration: inner updates of every task, then the outer update through them.

    for every task i in parallel: φ_i⁰ = θ
      for k = 0..K−1:  D_i^k ~ rollouts of φ_i^k;   φ_i^{k+1} = φ_i^k + α_i^k · x(φ_i^k; D_i^k, h_i)
      D_i^K ~ rollouts of φ_i^K
    F(θ) = mean_i F_i(θ),   G(θ) = mean_i c_i(θ), or every c_i(θ)          meta_gradient.py
    θ' = θ + α · x(∇F, ∇G, G, H, δ_θ)                                      H: mean KL at θ on the states of D^0

`run_inner_loop` makes the updates with rollouts and line searches and keeps the data. The outer update sees that data,
the α and what of the data is signal as constants. K = 0 makes the same code an ordinary algorithm on pooled tasks:
φ^K = θ, D^K = D^0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.algorithms.inner_state import InnerState, InnerStateName, extended, pack, unpack
from metacpo.algorithms.meta_gradient import ConstraintOn, Gradient, InnerLoop, MetaObjective
from metacpo.algorithms.policy_update import (
    PolicyUpdate,
    StepStats,
    UpdateData,
    composed,
    line_search,
    none_where,
    update,
)
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.trust_region import contrast_gradients, metric
from metacpo.estimation import Batch, kl
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import Policy

Sampler = Callable[[Float[Array, "M n"], Key[Array, ""]], tuple[Batch, EpisodeStats]]


@dataclass(frozen=True)
class MetaSettings:
    """M tasks a meta-iteration, K inner steps, B episodes a rollout; and how the outer step looks at them."""

    tasks: int = 5
    steps: int = 5
    episodes: int = 8
    meta_gradient: Literal["exact", "first_order", "e_maml"] = "exact"
    """Through the inner steps; taking these for constants; or with E-MAML's term for the data that θ draws."""
    meta_constraints: Literal["mean", "per_task"] = "mean"
    """One pooled mean of the tasks' costs under their limits (the paper), or every task's own."""
    constraint_on: Literal["adapted", "every"] = "adapted"
    """Whose cost the outer step keeps under the limit: the adapted policy's, or that of all steps 0..K (anytime)."""
    learned: tuple[InnerStateName, ...] = ()
    """Numbers that are meta-learned beside θ: "scale" of the inner steps, first "multiplier" of a Lagrangian."""


@dataclass(frozen=True)
class Algorithm:
    """A composition: the update of the inner steps, that of the outer one, and what joins them.

    adapts: whether training goes through inner steps; if not they only follow it, on the new task (fine-tuning).
    gradient, constraint_on: see `meta_gradient.py`. reads_costs: False leaves the constraints out of all data (m = 0).
    global_critic: one cost critic for the data of all tasks instead of one for each.
    """

    inner: PolicyUpdate
    outer: PolicyUpdate
    adapts: bool = True
    gradient: Gradient = "exact"
    constraint_on: ConstraintOn = "adapted"
    per_task: bool = False
    learned: tuple[InnerStateName, ...] = ()
    reads_costs: bool = True
    global_critic: bool = False


def run_inner_loop(
    policy: Policy,
    theta: Float[Array, " n"],
    inner_state: InnerState,
    sample: Sampler,
    key: Key[Array, ""],
    settings: MetaSettings,
    inner: PolicyUpdate,
) -> InnerLoop:
    """K inner updates of every task from θ, with fresh data for each. `sample(φ [M, n], key)` rolls out."""
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (settings.tasks, *x.shape)), (theta, inner_state))

    def inner_step(carry: tuple[Float[Array, "M n"], InnerState], key: Key[Array, ""]):
        phi, inner_state = carry
        batch, stats = sample(phi, key)
        new, after, updates = jax.vmap(lambda p, y, D: update(policy, p, y, D, inner))(phi, inner_state, batch)
        return (new, after), (phi, batch, stats, updates)

    # K + 1 rounds of one loop body, so that the rollout is compiled once; the last round's update is dropped.
    keys = jax.random.split(key, settings.steps + 1)
    _, (phis, batches, stats, updates) = jax.lax.scan(inner_step, start, keys)
    K = settings.steps
    first, updates = (jax.tree.map(lambda x: x[:K], tree) for tree in (batches, updates))
    return InnerLoop(first, updates, stats, phis[K], jax.tree.map(lambda x: x[K], batches), phis)


class OuterStats(eqx.Module):
    """What became of an outer update; agreement: of two halves of the tasks about F and G, see `MetaRows`."""

    step: StepStats
    agreement: Float[Array, " 2"]


def meta_update(
    policy: Policy, theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop, algorithm: Algorithm
) -> tuple[Float[Array, " n"], InnerState, OuterStats]:
    """The outer step with its line search: KL at θ, and (F, G) recomputed through all K steps.

    Without inner steps the update's own inner state goes on from here; else what of it is learned has moved with θ.
    """
    K, region, learned = loop.updates.alpha.shape[0], algorithm.outer.region, algorithm.learned
    objective = MetaObjective(
        policy=policy,
        inner=algorithm.inner,
        gradient=algorithm.gradient if K else "exact",
        constraint_on=algorithm.constraint_on if K else "adapted",
        per_task=algorithm.per_task,
        learned=learned,
    )
    packed = pack(theta, inner_state, learned)
    found = objective.rows(packed, theta, inner_state, loop)
    weights, after = algorithm.outer.objective(found.G, inner_state)
    states = pooled(valid_data(loop))
    H = extended(metric(policy, theta, states, region), packed, theta.shape[0])
    # Through inner steps the noise is not measured, which would take as many more passes back. That of pooled data is.
    contrasts = None if K else _contrasts(policy, theta, states, found.b)
    signal = Signal.full(found.G.shape[0], theta.dtype) if K else None
    data = UpdateData(found.g, found.b, found.G, H, contrasts)
    proposed = composed(data, weights, jnp.ones((), theta.dtype), signal, algorithm.outer)
    proposed = none_where(~jnp.any(found.task_weight > 0), proposed)  # no constraint is not the same as no task

    def divergence(new: Float[Array, " k"]) -> Float[Array, ""]:
        return kl(policy, theta, unpack(new, inner_state, learned)[0], states)

    def value(new: Float[Array, " k"]):
        return objective(new, theta, inner_state, loop)

    packed, stats = line_search(packed, proposed, value, divergence, algorithm.outer)
    theta, moved = unpack(packed, inner_state, learned)
    lost = jnp.any((found.task_weight == 0) & (loop.task_weight > 0))  # a gradient that was not finite
    stats = eqx.tree_at(lambda s: s.nonfinite, stats, jnp.maximum(stats.nonfinite, lost.astype(theta.dtype)))
    return theta, moved if K else after, OuterStats(stats, found.agreement)


def _contrasts(
    policy: Policy, theta: Float[Array, " n"], states: Batch, b: Float[Array, "G k"]
) -> Float[Array, "C r k"]:
    """The contrasts of halves of every task's episodes, for (g, b); 0 for the learned inner state, on which
    nothing depends, and for constraints that are one task's own."""
    own = contrast_gradients(policy, theta, states)
    C, rows, n = own.shape
    own = own if rows == 1 + b.shape[0] else jnp.zeros((C, 1 + b.shape[0], n), own.dtype).at[:, 0].set(own[:, 0])
    return jnp.pad(own, ((0, 0), (0, 0), (0, b.shape[1] - n)))


def adapted_cost(predicted: Float[Array, " G"], algorithm: Algorithm, tasks: int, m: int) -> Float[Array, ""]:
    """Of a predicted change of G what concerns the adapted policies: mean over tasks, summed over the m costs.

    0 without costs, NaN where G says nothing of the adapted policies.
    """
    if m == 0:
        return jnp.zeros((), predicted.dtype)
    if predicted.shape[0] == 0 or algorithm.constraint_on == "start":
        return jnp.asarray(jnp.nan, predicted.dtype)
    each = predicted.reshape(tasks if algorithm.per_task else 1, -1, m)  # tasks, steps 0..K or the last alone, costs
    return jnp.mean(jnp.sum(each[:, -1], axis=-1))


def valid_data(loop: InnerLoop) -> Batch:
    """D^0 of all tasks, each by its weight."""
    first, task_weight = loop.first, loop.task_weight[:, None]
    return eqx.tree_at(
        lambda D: (D.weight, D.cost_weight), first, (task_weight * first.weight, task_weight * first.cost_weight)
    )


def pooled(batch: Batch) -> Batch:
    """The data of M tasks as that of one, every task with the same weight. c is averaged."""
    M, N = batch.weight.shape

    def flat(x: Array) -> Array:
        return x.reshape(M * N, *x.shape[2:])

    return Batch(
        z=flat(batch.z),
        action=flat(batch.action),
        log_prob=flat(batch.log_prob),
        reward_advantage=flat(batch.reward_advantage),
        cost_advantage=flat(batch.cost_advantage),
        weight=flat(batch.weight) / M,
        cost_weight=flat(batch.cost_weight) / M,
        contrast=flat(batch.contrast),
        c=jnp.mean(batch.c, axis=0),
        margin=jnp.sqrt(jnp.sum(batch.margin**2, axis=0)) / M,
        outer_margin=jnp.sqrt(jnp.sum(batch.outer_margin**2, axis=0)) / M,
    )
