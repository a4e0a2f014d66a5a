"""What the outer step lowers and holds, as functions of θ on the frozen data of an inner loop.

Every one is a sum over tasks of F_i(θ) and c_i(θ), so that one pass backward gives all tasks' gradients:

    "exact"         F_i = L_R(φ_i^K; D_i^K), φ_i^K a function of θ through all K steps (`differentiable_inner_loop`)
    "first_order"   the same with every step a constant: ∂φ_i^K/∂θ = I (first-order MAML)
    "e_maml"        through steps that take their data as drawn, and the score of all data that θ drew apart from them:
                    + (F_i − mean_{j≠i} F_j) · Σ_k log π_{φ^k}(D_i^k) (Al-Shedivat et al. 2018, Stadie et al. 2018);
                    unbiased, with a variance that grows with the data
    "hessian_free"  F_i = −mean ρ_θ Â on D_i^K, with ρ_θ = π_θ'/π_θ at the *meta*-policy (Xu and Zhu, NeurIPS 2025)
    "regret_bound"  F_i = KL(π_{φ_i^K} ‖ π_θ)/(ηK) + ½η·mean Â²: the bound on the regret of K steps of size η from θ
                    against φ_i^K as comparator (Meta-SRL, Khattar et al. 2023; mirror descent's bound). No c.

`constraint_on` says whose cost c_i is: of the "adapted" policy φ_i^K, of "every" φ_i^k (k = 0..K, stacked), or of the
"start" θ. "e_maml" knows the score of the adapted cost alone, "hessian_free" holds the start.
"""

from dataclasses import dataclass
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.finite import all_finite, masked_mean, task_weights
from metacpo.algorithms.inner_state import InnerState, InnerStateName, unpack
from metacpo.algorithms.policy_update import LossAndConstraints, PolicyUpdate, StepStats, compute_step
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.steps import NaturalGradientStep
from metacpo.algorithms.trust_region import linearise, linearise_as_drawn
from metacpo.estimation import Batch, kl, surrogates
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import Policy
from metacpo.solver import row_sizes

Gradient = Literal["exact", "first_order", "e_maml", "hessian_free", "regret_bound"]
ConstraintOn = Literal["adapted", "every", "start"]


class InnerLoop(eqx.Module):
    """One descent of all M tasks: the data of the K steps, what became of these, and where it ended.

    batches[k] and updates[k] (with α^k and the signal) belong to φ^k → φ^{k+1}, k < K; stats[k] to φ^k, k ≤ K; phi is
    φ^K and last its data D^K. path, where `run_inner_loop` made the loop: φ^0..φ^K.
    """

    batches: Batch
    updates: StepStats
    stats: EpisodeStats
    phi: Float[Array, "M n"]
    last: Batch
    path: Float[Array, "steps M n"] | None = None

    @property
    def first(self) -> Batch:
        """D^0 of all tasks: the data of θ itself (D^K when K = 0)."""
        if self.updates.alpha.shape[0] == 0:
            return self.last
        return jax.tree.map(lambda x: x[0], self.batches)

    @property
    def task_weight(self) -> Float[Array, " M"]:
        """Every task's weight in means over tasks (see `task_weights`): 0 for one with a number that is not finite, or
        with a batch without a single valid step, which looks as safe as can be."""
        data = (self.batches, self.updates.alpha, self.updates.delta, self.updates.signal)
        valid = jax.vmap(lambda steps, rest: all_finite((steps, rest)), (1, 0))(data, (self.last, self.phi))
        seen = jnp.all(jnp.sum(self.batches.weight, axis=-1) > 0, axis=0) & (jnp.sum(self.last.weight, axis=-1) > 0)
        return task_weights(valid & seen, self.phi.dtype)


class TaskData(eqx.Module):
    """One task's part of an inner loop; credit [1 + m]: its adapted policy's loss and costs above the others'."""

    batches: Batch
    updates: StepStats
    last: Batch
    phi: Float[Array, "*M n"]
    credit: Float[Array, "*M k"]


def differentiable_inner_loop(
    policy: Policy,
    theta: Float[Array, " n"],
    inner_state: InnerState,
    batches: Batch,
    updates: StepStats,
    inner: PolicyUpdate,
    gradient: Gradient = "exact",
) -> tuple[Float[Array, " n"], Float[Array, "K n"]]:
    """φ^K of one task, and φ⁰..φ^{K−1}, as functions of (θ, inner_state) on frozen data.

    φ^{k+1} = φ^k + α^k x(φ^k; D^k) with α^k constant, and what of D^k is signal; δ^k is a function of φ^k and D^k.
    "first_order" takes every x for a constant (∂φ^K/∂θ = I), "e_maml" the data as they were drawn; all others
    differentiate x for given data.
    """
    linear = linearise_as_drawn if gradient == "e_maml" else linearise

    def inner_step(carry: tuple[Float[Array, " n"], InnerState], data: tuple[Batch, Array, Signal]):
        phi, inner_state = carry
        batch, alpha, signal = data
        proposed, after = compute_step(policy, phi, inner_state, batch, signal, inner, linear)
        step = proposed.proposal.step
        return (phi + alpha * (jax.lax.stop_gradient(step) if gradient == "first_order" else step), after), phi

    (phi, _), path = jax.lax.scan(inner_step, (theta, inner_state), (batches, updates.alpha, updates.signal))
    return phi, path


class MetaRows(eqx.Module):
    """The gradients of F (row 0) and of the p constraints, task by task, each times its task's weight/M; and G."""

    rows: Float[Array, "r M k"]
    G: Float[Array, " G"]
    task_weight: Float[Array, " M"]
    per_task: bool = eqx.field(static=True)

    @property
    def g(self) -> Float[Array, " k"]:
        """∇F."""
        return jnp.sum(self.rows[0], axis=0)

    @property
    def b(self) -> Float[Array, "G k"]:
        """∇G: of the means, or task by task."""
        if not self.per_task:
            return jnp.sum(self.rows[1:], axis=1)
        M = self.rows.shape[1]
        return jnp.swapaxes(M * self.rows[1:], 0, 1).reshape(-1, self.rows.shape[2])

    @property
    def agreement(self) -> Float[Array, " 2"]:
        """Cosine between the gradients of two halves of the tasks, of F and of G (mean over its p).

        1 where all tasks want the same of θ and their data say so; 0 where what is followed is one half's noise, and
        where a half has no gradient.
        """
        halves = jnp.sum(self.rows[:, ::2], axis=1), jnp.sum(self.rows[:, 1::2], axis=1)
        one, other = (half / row_sizes(half)[:, None] for half in halves)
        size = jnp.linalg.norm(one, axis=-1) * jnp.linalg.norm(other, axis=-1)
        cosine = jnp.where(size > 0, jnp.sum(one * other, axis=-1) / jnp.where(size > 0, size, 1), 0)
        return jnp.stack([cosine[0], jnp.sum(cosine[1:]) / max(cosine.shape[0] - 1, 1)])


@dataclass(frozen=True)
class MetaObjective:
    """(F, G) of an inner loop as a function of Θ (θ with the learned inner state packed behind it)."""

    policy: Policy
    inner: PolicyUpdate
    gradient: Gradient = "exact"
    constraint_on: ConstraintOn = "adapted"
    per_task: bool = False
    learned: tuple[InnerStateName, ...] = ()

    def __call__(
        self, packed: Float[Array, " k"], theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop
    ) -> tuple[Float[Array, ""], Float[Array, " G"]]:
        """F, the mean over valid tasks, and G: c's mean over them, or with `per_task` the c of each task, [M · p].

        theta and inner_state are where the loop started, constants. A task of weight 0 has c = 0: nothing to hold.
        """
        task_weight = loop.task_weight
        F, c = self._values(self._every(packed, loop), theta, inner_state, loop)
        return masked_mean(F, task_weight), self._constraints(c, self._margins(loop), task_weight)

    def linearise(
        self, packed: Float[Array, " k"], theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop
    ) -> tuple[Float[Array, " k"], Float[Array, "G k"], Float[Array, " G"]]:
        """(∇F, ∇G, G) at Θ; see `rows`."""
        found = self.rows(packed, theta, inner_state, loop)
        return found.g, found.b, found.G

    def rows(
        self, packed: Float[Array, " k"], theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop
    ) -> "MetaRows":
        """(∇F, ∇G, G) at Θ task by task. F_i and c_i look at their own copy of Θ: 1 + p pullbacks serve all M tasks.

        A task whose gradient is not finite has no task_weight: it must not void the others'.
        """
        (_, c), pullback = jax.vjp(lambda P: self._values(P, theta, inner_state, loop), self._every(packed, loop))
        M, p = c.shape
        unit = jnp.broadcast_to(jnp.eye(p + 1, dtype=packed.dtype)[:, None] / M, (p + 1, M, p + 1))
        (rows,) = jax.vmap(pullback)((unit[..., 0], unit[..., 1:]))  # [1 + p, M, k]
        task_weight = task_weights((loop.task_weight > 0) & jnp.all(jnp.isfinite(rows), axis=(0, 2)), packed.dtype)
        rows = jnp.where(task_weight[:, None] > 0, rows, 0.0)
        return MetaRows(
            task_weight[:, None] * rows,
            self._constraints(c, self._margins(loop), task_weight),
            task_weight,
            self.per_task,
        )

    def _constraints(
        self, c: Float[Array, "M p"], margin: Float[Array, "M p"], task_weight: Float[Array, " M"]
    ) -> Float[Array, " G"]:
        """G of every task's c, margins added: those of independent tasks add in squares, √(Σ margin²)/M for a mean."""
        if self.per_task:
            return jnp.where(task_weight[:, None] > 0, c + margin, 0.0).ravel()
        counted = jnp.where(task_weight[:, None] > 0, task_weight[:, None] * margin, 0.0)
        return masked_mean(c, task_weight) + jnp.sqrt(jnp.sum(counted**2, axis=0)) / c.shape[0]

    def _margins(self, loop: InnerLoop) -> Float[Array, "M p"]:
        """The margins of the c_i that are held, in the same order."""
        last, before = loop.last.outer_margin, loop.batches.outer_margin
        if self.gradient == "regret_bound":
            return last[:, :0]
        if self.constraint_on == "start":
            return before[0]
        if self.constraint_on == "adapted":
            return last
        return jnp.concatenate([jnp.swapaxes(before, 0, 1).reshape(last.shape[0], -1), last], axis=1)

    def _every(self, packed: Float[Array, " k"], loop: InnerLoop) -> Float[Array, "M k"]:
        return jnp.broadcast_to(packed, (loop.phi.shape[0], *packed.shape))

    def _values(
        self, packed: Float[Array, "M k"], theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop
    ) -> tuple[Float[Array, " M"], Float[Array, "M p"]]:
        """F_i and c_i of every task, each at its own Θ."""

        def task(packed: Float[Array, " k"], *parts) -> LossAndConstraints:
            data = TaskData(*parts)
            new, new_inner_state = unpack(packed, inner_state, self.learned)
            if self.gradient == "regret_bound":
                return self._regret_bound(new, new_inner_state, data), data.last.c[:0]
            return self._adapted(new, new_inner_state, theta, data)

        over_tasks = jax.vmap(task, in_axes=(0, 1, 1, 0, 0, 0))
        return over_tasks(packed, loop.batches, loop.updates, loop.last, loop.phi, _credit(loop))

    def _adapted(
        self, theta: Float[Array, " n"], inner_state: InnerState, origin: Float[Array, " n"], data: TaskData
    ) -> LossAndConstraints:
        """(F_i, c_i) of the gradients that look at the adapted policy's own data."""
        policy = self.policy
        if self.gradient == "hessian_free":
            drawn = eqx.tree_at(lambda D: D.log_prob, data.last, _log_prob(policy, origin, data.last))
            return surrogates(policy, theta, drawn)[0], self._constraints_at(theta, theta[None], data)
        phi, path = differentiable_inner_loop(
            policy, theta, inner_state, data.batches, data.updates, self.inner, self.gradient
        )
        F, c = surrogates(policy, phi, data.last)
        if self.constraint_on != "adapted":
            c = self._constraints_at(phi, path, data)
        if self.gradient == "e_maml":
            score = jnp.sum(jax.vmap(lambda p, D: _score(policy, p, D))(path, data.batches))
            F, c = F + score * data.credit[0], c + score * data.credit[1:]
        return F, c

    def _constraints_at(self, phi: Float[Array, " n"], path: Float[Array, "K n"], data: TaskData) -> Float[Array, " p"]:
        """c of the policies that are held under the limit."""
        if self.constraint_on == "adapted":
            return surrogates(self.policy, phi, data.last)[1]
        at = jax.vmap(lambda p, D: surrogates(self.policy, p, D)[1])
        if self.constraint_on == "start":
            return at(path[:1], jax.tree.map(lambda x: x[:1], data.batches))[0]
        before = at(path, data.batches)
        return jnp.append(before.ravel(), surrogates(self.policy, phi, data.last)[1])

    def _regret_bound(self, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData) -> Float[Array, ""]:
        """KL(π_{φ^K} ‖ π_θ)/(ηK) + ½η·mean_k mean Â², η the size of the natural steps, Â of what they lowered."""
        step = self.inner.step
        assert isinstance(step, NaturalGradientStep), "the bound is that of steps of a given size"
        eta, K = step.rate * jnp.exp(inner_state.log_scale), data.updates.alpha.shape[0]

        def squared(batch: Batch) -> Float[Array, ""]:
            weights, _ = self.inner.objective(batch.c, inner_state)
            advantage = weights.reward * batch.reward_advantage - batch.cost_advantage @ weights.costs
            return jnp.sum(batch.weight * advantage**2)

        gap = kl(self.policy, data.phi, theta, data.last) / (eta * K)
        return gap + 0.5 * eta * jax.lax.stop_gradient(jnp.mean(jax.vmap(squared)(data.batches)))


def _credit(loop: InnerLoop) -> Float[Array, "M k"]:
    """Per task, what its adapted loss and constraints (per step) are above the mean of the other tasks'."""
    adapted = jax.tree.map(lambda x: x[-1], loop.stats)
    loss = -adapted.episode_return / jnp.maximum(adapted.length, 1.0)
    values = jnp.concatenate([loss[:, None], loop.last.c], axis=1)
    M = values.shape[0]
    return values if M == 1 else (values - jnp.mean(values, axis=0)) * (M / (M - 1))


def _log_prob(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, " N"]:
    return policy(phi, batch.z).log_prob(batch.action)


def _score(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, ""]:
    """Σ over all steps of log π_φ(a|s) − log π_data(a|s): 0 in value at φ_data, the data's score in its gradient."""
    counts = (batch.weight > 0).astype(batch.weight.dtype)
    return jnp.sum(counts * (_log_prob(policy, phi, batch) - batch.log_prob))
