"""The two loops of a meta-iteration: inner updates of every task, then the outer update through them.

    for every task i in parallel: φ_i⁰ = θ
      for k = 0..K−1:  D_i^k ~ rollouts of φ_i^k;   φ_i^{k+1} = φ_i^k + α_i^k · x(φ_i^k; D_i^k, h_i)
      D_i^K ~ rollouts of φ_i^K
    F(θ) = mean_i F_i(θ),   G(θ) = mean_i c_i(θ), or every c_i(θ)          meta_gradient.py
    θ' = θ + α · x(∇F, ∇G, G, H, δ_θ)                                      H: mean KL at θ on the states of D^0

`collect` walks down with rollouts and line searches and keeps the data. The outer update sees that data, the α and
what of the data is signal as constants. K = 0 makes the same code an ordinary algorithm on pooled tasks: φ^K = θ,
D^K = D^0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.algorithms.knobs import KnobName, Knobs, extended, pack, unpack
from metacpo.algorithms.meta_gradient import Gradient, Held, MetaObjective, Walk
from metacpo.algorithms.rule import LossAndCosts, Rule, StepStats, composed, line_search, none_where, update
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.trust_region import contrast_gradients, metric
from metacpo.estimation import Batch, kl
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import GaussianPolicy

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
    held: Literal["adapted", "every"] = "adapted"
    """Whose cost the outer step keeps under the limit: the adapted policy's, or that of all steps 0..K (anytime)."""
    learned: tuple[KnobName, ...] = ()
    """Numbers that are meta-learned beside θ: "scale" of the inner steps, first "multiplier" of a Lagrangian."""


@dataclass(frozen=True)
class Algorithm:
    """A composition: the rule of the inner steps, the rule of the outer one, and what joins them.

    adapts: whether training goes through inner steps; if not they only follow it, on the new task (fine-tuning).
    gradient, held: see `meta_gradient.py`. reads_costs: False leaves the constraints out of all data (m = 0).
    global_critic: one cost critic for the data of all tasks instead of one for each.
    """

    inner: Rule
    outer: Rule
    adapts: bool = True
    gradient: Gradient = "exact"
    held: Held = "adapted"
    per_task: bool = False
    learned: tuple[KnobName, ...] = ()
    reads_costs: bool = True
    global_critic: bool = False


def collect(
    policy: GaussianPolicy,
    theta: Float[Array, " n"],
    knobs: Knobs,
    sample: Sampler,
    key: Key[Array, ""],
    settings: MetaSettings,
    inner: Rule,
) -> Walk:
    """K inner updates of every task from θ, with fresh data for each. `sample(φ [M, n], key)` rolls out."""
    start = jax.tree.map(lambda x: jnp.broadcast_to(x, (settings.tasks, *x.shape)), (theta, knobs))

    def inner_step(carry: tuple[Float[Array, "M n"], Knobs], key: Key[Array, ""]):
        phi, knobs = carry
        batch, stats = sample(phi, key)
        new, after, updates = jax.vmap(lambda p, y, D: update(policy, p, y, D, inner))(phi, knobs, batch)
        return (new, after), (phi, batch, stats, updates)

    # K + 1 rounds of one loop body, so that the rollout is compiled once; the last round's update is dropped.
    keys = jax.random.split(key, settings.steps + 1)
    _, (phis, batches, stats, updates) = jax.lax.scan(inner_step, start, keys)
    K = settings.steps
    first, updates = (jax.tree.map(lambda x: x[:K], tree) for tree in (batches, updates))
    return Walk(first, updates, stats, phis[K], jax.tree.map(lambda x: x[K], batches), phis)


class OuterStats(eqx.Module):
    """What became of an outer update; agreement: of two halves of the tasks about F and G, see `MetaRows`."""

    step: StepStats
    agreement: Float[Array, " 2"]


def meta_update(
    policy: GaussianPolicy, theta: Float[Array, " n"], knobs: Knobs, walk: Walk, algorithm: Algorithm
) -> tuple[Float[Array, " n"], Knobs, OuterStats]:
    """The outer step with its line search: KL at θ, and (F, G) recomputed through all K steps.

    Without inner steps the rule's own knobs go on from here; else those that are learned have moved with θ.
    """
    K, region, learned = walk.updates.alpha.shape[0], algorithm.outer.region, algorithm.learned
    objective = MetaObjective(
        policy=policy,
        inner=algorithm.inner,
        gradient=algorithm.gradient if K else "exact",
        held=algorithm.held if K else "adapted",
        per_task=algorithm.per_task,
        learned=learned,
    )
    packed = pack(theta, knobs, learned)
    found = objective.rows(packed, theta, knobs, walk)
    weights, after = algorithm.outer.aim(found.G, knobs)
    states = pooled(sound_data(walk))
    H = extended(metric(policy, theta, states, region), packed, theta.shape[0])
    # Through inner steps the noise is not measured, which would take as many more passes back. That of pooled data is.
    contrasts = None if K else _contrasts(policy, theta, states, found.b)
    signal = Signal.full(found.G.shape[0], theta.dtype) if K else None
    data = LossAndCosts(found.g, found.b, found.G, H, contrasts)
    proposed = composed(data, weights, jnp.ones((), theta.dtype), signal, algorithm.outer)
    proposed = none_where(~jnp.any(found.share > 0), proposed)  # no constraint is not the same as no task

    def divergence(new: Float[Array, " k"]) -> Float[Array, ""]:
        return kl(policy, theta, unpack(new, knobs, learned)[0], states)

    def value(new: Float[Array, " k"]):
        return objective(new, theta, knobs, walk)

    packed, stats = line_search(packed, proposed, value, divergence, algorithm.outer)
    theta, moved = unpack(packed, knobs, learned)
    lost = jnp.any((found.share == 0) & (walk.share > 0)).astype(theta.dtype)  # a gradient that was not finite
    stats = eqx.tree_at(lambda s: s.nonfinite, stats, jnp.maximum(stats.nonfinite, lost))
    return theta, moved if K else after, OuterStats(stats, found.agreement)


def _contrasts(
    policy: GaussianPolicy, theta: Float[Array, " n"], states: Batch, b: Float[Array, "G k"]
) -> Float[Array, "C r k"]:
    """The contrasts of halves of every task's episodes, for (g, b); 0 for the learned knobs, on which nothing depends,
    and for constraints that are one task's own."""
    own = contrast_gradients(policy, theta, states)
    C, rows, n = own.shape
    own = own if rows == 1 + b.shape[0] else jnp.zeros((C, 1 + b.shape[0], n), own.dtype).at[:, 0].set(own[:, 0])
    return jnp.pad(own, ((0, 0), (0, 0), (0, b.shape[1] - n)))


def adapted_cost(promised: Float[Array, " G"], algorithm: Algorithm, tasks: int, m: int) -> Float[Array, ""]:
    """Of a promised change of G what concerns the adapted policies: mean over tasks, summed over the m costs.

    0 without costs, NaN where G says nothing of the adapted policies.
    """
    if m == 0:
        return jnp.zeros((), promised.dtype)
    if promised.shape[0] == 0 or algorithm.held == "start":
        return jnp.asarray(jnp.nan, promised.dtype)
    each = promised.reshape(tasks if algorithm.per_task else 1, -1, m)  # tasks, steps 0..K or the last alone, costs
    return jnp.mean(jnp.sum(each[:, -1], axis=-1))


def sound_data(walk: Walk) -> Batch:
    """D^0 of all tasks, each weighted by its share."""
    first, share = walk.first, walk.share[:, None]
    return eqx.tree_at(lambda D: (D.weight, D.cost_weight), first, (share * first.weight, share * first.cost_weight))


def pooled(batch: Batch) -> Batch:
    """The data of M tasks as that of one, every task with the same share. c is averaged."""
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
