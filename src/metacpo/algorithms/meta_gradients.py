"""Meta-gradients: what the outer step lowers and holds, F_i(θ) and c_i(θ) of one task on its frozen inner loop.

    Exact         F_i = L_R(φ_i^K; D_i^K), φ_i^K a function of θ through all K steps (inner_loop.py)
    FirstOrder    the same with every step a constant: ∂φ_i^K/∂θ = I
    EMAML         through steps that take their data as drawn, and the score of all data that θ drew
    HessianFree   the loss of the adapted policy's data, at the meta-policy

and `RegretBound` (meta_crpo.py). One gradient backward through `MetaObjective` gives that of all tasks.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.acceptance import LossAndConstraints, StepStats
from metacpo.algorithms.inner_loop import ConstraintOn, Linearisation, differentiable_inner_loop
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.trust_region import linearise, linearise_as_drawn
from metacpo.estimation import Batch, surrogates
from metacpo.policies import Policy


class TaskData(eqx.Module):
    """One task's part of an inner loop from θ = `start`, all of it constant.

    credit [1 + m]: its adapted policy's loss and costs above the other tasks'.
    """

    start: Float[Array, " n"]
    batches: Batch
    updates: StepStats
    last: Batch
    phi: Float[Array, " n"]
    credit: Float[Array, " k"]


@dataclass(frozen=True)
class MetaProblem:
    """What a meta-gradient goes through: the policy, the update that adapts it, and whose costs are limited."""

    policy: Policy
    inner: PolicyUpdate
    constraint_on: ConstraintOn = "adapted"

    def repeated(
        self,
        theta: Float[Array, " n"],
        inner_state: InnerState,
        data: TaskData,
        linear: Linearisation = linearise,
        constant_steps: bool = False,
    ) -> tuple[Float[Array, " n"], Float[Array, "K n"]]:
        """φ^K and φ⁰..φ^{K−1} as functions of (θ, inner state): see `differentiable_inner_loop`."""
        batches, updates = data.batches, data.updates
        return differentiable_inner_loop(
            self.policy, theta, inner_state, batches, updates, self.inner, linear, constant_steps
        )

    def adapted(self, phi: Float[Array, " n"], path: Float[Array, "K n"], data: TaskData) -> LossAndConstraints:
        """L_R of φ^K on its own data, and the c that are limited."""
        F, c = surrogates(self.policy, phi, data.last)
        return F, c if self.constraint_on == "adapted" else self.constraints(phi, path, data)

    def constraints(self, phi: Float[Array, " n"], path: Float[Array, "K n"], data: TaskData) -> Float[Array, " p"]:
        """c of the meta-policy, or of every φ⁰..φ^K."""
        at = jax.vmap(lambda p, D: surrogates(self.policy, p, D)[1])
        if self.constraint_on == "start":
            return at(path[:1], jax.tree.map(lambda x: x[:1], data.batches))[0]
        before = at(path, data.batches)
        return jnp.append(before.ravel(), surrogates(self.policy, phi, data.last)[1])


@runtime_checkable
class MetaGradient(Protocol):
    """(θ, inner state) ↦ F_i and c_i of one task, to be differentiated.

    holds: the policies whose costs c_i may be. predicts_return: F_i is the adapted policy's loss per step, so that a
    change of F says by how much the return changes.
    """

    holds: ClassVar[tuple[ConstraintOn, ...]]
    predicts_return: ClassVar[bool]

    def __call__(
        self, problem: MetaProblem, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData
    ) -> LossAndConstraints: ...


@dataclass(frozen=True)
class Exact:
    """F_i = L_R(φ_i^K; D_i^K) and c_i through all K constrained steps: Meta-CPO's."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("adapted", "every", "start")
    predicts_return: ClassVar[bool] = True

    def __call__(
        self, problem: MetaProblem, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData
    ) -> LossAndConstraints:
        return problem.adapted(*problem.repeated(theta, inner_state, data), data)


@dataclass(frozen=True)
class FirstOrder:
    """The same with every inner step a constant, ∂φ_i^K/∂θ = I: first-order MAML (Finn et al. 2017)."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("adapted", "every", "start")
    predicts_return: ClassVar[bool] = True

    def __call__(
        self, problem: MetaProblem, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData
    ) -> LossAndConstraints:
        return problem.adapted(*problem.repeated(theta, inner_state, data, constant_steps=True), data)


@dataclass(frozen=True)
class EMAML:
    """F_i and c_i through steps that take their data as drawn, and the score of all data that θ drew apart from them:

        + (F_i − mean_{j≠i} F_j) · Σ_k log π_{φ^k}(D_i^k)       (Al-Shedivat et al. 2018, Stadie et al. 2018)

    Unbiased, with a variance that grows with the data. It knows the score of the adapted cost alone.
    """

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("adapted",)
    predicts_return: ClassVar[bool] = True

    def __call__(
        self, problem: MetaProblem, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData
    ) -> LossAndConstraints:
        phi, path = problem.repeated(theta, inner_state, data, linearise_as_drawn)
        F, c = problem.adapted(phi, path, data)
        score = jnp.sum(jax.vmap(lambda p, D: _score(problem.policy, p, D))(path, data.batches))
        return F + score * data.credit[0], c + score * data.credit[1:]


@dataclass(frozen=True)
class HessianFree:
    """F_i = −mean ρ_θ Â on D_i^K, ρ_θ = π_θ'/π_θ at the *meta*-policy, whose own cost is held (Xu and Zhu 2025)."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("start",)
    predicts_return: ClassVar[bool] = True

    def __call__(
        self, problem: MetaProblem, theta: Float[Array, " n"], inner_state: InnerState, data: TaskData
    ) -> LossAndConstraints:
        policy = problem.policy
        drawn = eqx.tree_at(lambda D: D.log_prob, data.last, _log_prob(policy, data.start, data.last))
        return surrogates(policy, theta, drawn)[0], problem.constraints(theta, theta[None], data)


META_GRADIENTS: dict[str, MetaGradient] = {"exact": Exact(), "first_order": FirstOrder(), "e_maml": EMAML()}


def _log_prob(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, " N"]:
    return policy(phi, batch.z).log_prob(batch.action)


def _score(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, ""]:
    """Σ over all steps of log π_φ(a|s) − log π_data(a|s): 0 in value at φ_data, the data's score in its gradient."""
    counts = (batch.weight > 0).astype(batch.weight.dtype)
    return jnp.sum(counts * (_log_prob(policy, phi, batch) - batch.log_prob))
