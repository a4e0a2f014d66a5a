"""Meta-CPO (arXiv 2312.10230): the outer constrained step through K inner constrained steps.

    for every task i in parallel: φ_i⁰ = θ
      for k = 0..K−1:  D_i^k ~ rollouts of φ_i^k;   φ_i^{k+1} = φ_i^k + α_i^k · x(φ_i^k; D_i^k, h_i)
      D_i^K ~ rollouts of φ_i^K
    F(θ) = mean_i L_R(φ_i^K; D_i^K),   G(θ) = mean_i c(φ_i^K; D_i^K)
    θ' = θ + α · argmin_x ∇Fᵀx  s.t.  G + ∇Gᵀx ≤ 0,  ½xᵀHx ≤ δ_θ       H: mean KL at θ on the states of D^0

`collect` walks down with rollouts and line searches and keeps the data; `replay` walks down again on that data
with the same α, as a pure function of θ that autodiff sees all of. K = 0 makes the same code CPO on pooled tasks.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.algorithms.trust_region import (
    StepStats,
    TrustRegionSettings,
    cg_settings,
    constrained_step,
    line_search,
    metric,
    trust_region,
    update,
)
from metacpo.estimation import Batch, surrogates
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import GaussianPolicy
from metacpo.solver import Problem, solve

MetaGradient = Literal["exact", "first_order"]
Sampler = Callable[[Float[Array, "M n"], Key[Array, ""]], tuple[Batch, EpisodeStats]]


@dataclass(frozen=True)
class MetaSettings:
    """M tasks a meta-iteration, K inner steps, B episodes a rollout."""

    tasks: int = 5
    steps: int = 5
    episodes: int = 8
    meta_gradient: MetaGradient = "exact"


class Walk(eqx.Module):
    """One descent of all M tasks: the data of the K steps, what became of these, and where it ended.

    batches[k] and updates[k] (with α^k and δ^k) belong to φ^k → φ^{k+1}, k < K; stats[k] to φ^k, k ≤ K; phi is φ^K
    and last its data D^K.
    """

    batches: Batch
    updates: StepStats
    stats: EpisodeStats
    phi: Float[Array, "M n"]
    last: Batch

    @property
    def first(self) -> Batch:
        """D^0 of all tasks: the data of θ itself (D^K when K = 0)."""
        if self.updates.alpha.shape[0] == 0:
            return self.last
        return jax.tree.map(lambda x: x[0], self.batches)


def collect(
    policy: GaussianPolicy,
    theta: Float[Array, " n"],
    sample: Sampler,
    key: Key[Array, ""],
    settings: MetaSettings,
    inner: TrustRegionSettings,
) -> Walk:
    """K inner updates of every task from θ, with fresh data for each. `sample(φ [M, n], key)` rolls out."""
    start = jnp.broadcast_to(theta, (settings.tasks, *theta.shape))

    def inner_step(phi: Float[Array, "M n"], key: Key[Array, ""]):
        batch, stats = sample(phi, key)
        new, updates = jax.vmap(lambda p, D: update(policy, p, D, inner))(phi, batch)
        return new, (phi, batch, stats, updates)

    # K + 1 rounds of one loop body, so that the rollout is compiled once; the last round's update is dropped.
    keys = jax.random.split(key, settings.steps + 1)
    _, (phis, batches, stats, updates) = jax.lax.scan(inner_step, start, keys)
    K = settings.steps
    first, updates = (jax.tree.map(lambda x: x[:K], tree) for tree in (batches, updates))
    return Walk(first, updates, stats, phis[K], jax.tree.map(lambda x: x[K], batches))


def replay(
    policy: GaussianPolicy,
    theta: Float[Array, " n"],
    batches: Batch,
    updates: StepStats,
    inner: TrustRegionSettings,
    meta_gradient: MetaGradient,
) -> Float[Array, " n"]:
    """φ^K of one task as a function of θ on frozen data: φ^{k+1} = φ^k + α^k x(φ^k; D^k), α^k and δ^k constant.

    "exact" differentiates x; "first_order" treats every x as a constant (∂φ^K/∂θ = I).
    """

    def inner_step(phi: Float[Array, " n"], data: tuple[Batch, Array, Array]):
        batch, alpha, delta = data
        step = constrained_step(policy, phi, batch, delta, inner)[0].step
        if meta_gradient == "first_order":
            step = jax.lax.stop_gradient(step)
        return phi + alpha * step, None

    return jax.lax.scan(inner_step, theta, (batches, updates.alpha, updates.delta))[0]


def meta_objective(
    policy: GaussianPolicy,
    theta: Float[Array, " n"],
    walk: Walk,
    inner: TrustRegionSettings,
    meta_gradient: MetaGradient,
) -> tuple[Float[Array, ""], Float[Array, " m"]]:
    """(F, G) at θ: mean over tasks of the adapted policies' loss and constraint on frozen data."""

    def task(batches: Batch, updates: StepStats, last: Batch):
        phi = replay(policy, theta, batches, updates, inner, meta_gradient)
        return surrogates(policy, phi, last)

    L_R, c = jax.vmap(task, in_axes=(1, 1, 0))(walk.batches, walk.updates, walk.last)
    return jnp.mean(L_R), jnp.mean(c, axis=0)


def meta_update(
    policy: GaussianPolicy,
    theta: Float[Array, " n"],
    walk: Walk,
    settings: MetaSettings,
    inner: TrustRegionSettings,
    outer: TrustRegionSettings,
) -> tuple[Float[Array, " n"], StepStats]:
    """The outer constrained step with its line search: KL at θ, and (F, G) recomputed through all K steps."""

    def objective(p: Float[Array, " n"]):
        return meta_objective(policy, p, walk, inner, settings.meta_gradient)

    (_, G), pullback = jax.vjp(objective, theta)
    unit = jnp.eye(G.shape[0] + 1, dtype=theta.dtype)
    (rows,) = jax.vmap(pullback)((unit[:, 0], unit[:, 1:]))  # ∇F, then the rows of ∇G
    states = pooled(walk.first)
    H = metric(policy, theta, states, outer)
    delta = trust_region(rows[1:], G, H, outer)
    solution = solve(Problem(rows[0], rows[1:], G, H, delta), cg=cg_settings(outer))
    return line_search(policy, theta, solution, delta, objective, states, outer)


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
        c=jnp.mean(batch.c, axis=0),
    )
