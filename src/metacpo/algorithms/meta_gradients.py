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
from metacpo.algorithms.inner_loop import ConstraintOn, differentiable_inner_loop
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.trust_region import linearise_as_drawn
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


@runtime_checkable
class MetaGradient(Protocol):
    """(θ, inner state) ↦ F_i and c_i of one task, to be differentiated.

    holds: the policies whose costs c_i may be. predicts_return: F_i is the adapted policy's loss per step, so that a
    change of F says by how much the return changes.
    """

    holds: ClassVar[tuple[ConstraintOn, ...]]
    predicts_return: ClassVar[bool]

    def __call__(
        self,
        policy: Policy,
        inner: PolicyUpdate,
        constraint_on: ConstraintOn,
        theta: Float[Array, " n"],
        inner_state: InnerState,
        data: TaskData,
    ) -> LossAndConstraints: ...


@dataclass(frozen=True)
class Exact:
    """F_i = L_R(φ_i^K; D_i^K) and c_i through all K constrained steps: Meta-CPO's."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("adapted", "every", "start")
    predicts_return: ClassVar[bool] = True

    def __call__(
        self,
        policy: Policy,
        inner: PolicyUpdate,
        constraint_on: ConstraintOn,
        theta: Float[Array, " n"],
        inner_state: InnerState,
        data: TaskData,
    ) -> LossAndConstraints:
        phi, path = differentiable_inner_loop(policy, theta, inner_state, data.batches, data.updates, inner)
        return _adapted(policy, constraint_on, phi, path, data)


@dataclass(frozen=True)
class FirstOrder:
    """The same with every inner step a constant, ∂φ_i^K/∂θ = I: first-order MAML (Finn et al. 2017)."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("adapted", "every", "start")
    predicts_return: ClassVar[bool] = True

    def __call__(
        self,
        policy: Policy,
        inner: PolicyUpdate,
        constraint_on: ConstraintOn,
        theta: Float[Array, " n"],
        inner_state: InnerState,
        data: TaskData,
    ) -> LossAndConstraints:
        phi, path = differentiable_inner_loop(
            policy, theta, inner_state, data.batches, data.updates, inner, constant_steps=True
        )
        return _adapted(policy, constraint_on, phi, path, data)


@dataclass(frozen=True)
class EMAML:
    """F_i and c_i through steps that take their data as drawn, and the score of all data that θ drew apart from them:

        + (F_i − mean_{j≠i} F_j) · Σ_k log π_{φ^k}(D_i^k)       (Al-Shedivat et al. 2018, Stadie et al. 2018)

    Unbiased, with a variance that grows with the data. It knows the score of the adapted cost alone.
    """

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("adapted",)
    predicts_return: ClassVar[bool] = True

    def __call__(
        self,
        policy: Policy,
        inner: PolicyUpdate,
        constraint_on: ConstraintOn,
        theta: Float[Array, " n"],
        inner_state: InnerState,
        data: TaskData,
    ) -> LossAndConstraints:
        phi, path = differentiable_inner_loop(
            policy, theta, inner_state, data.batches, data.updates, inner, linearise_as_drawn
        )
        F, c = _adapted(policy, constraint_on, phi, path, data)
        score = jnp.sum(jax.vmap(lambda p, D: _score(policy, p, D))(path, data.batches))
        return F + score * data.credit[0], c + score * data.credit[1:]


@dataclass(frozen=True)
class HessianFree:
    """F_i = −mean ρ_θ Â on D_i^K, ρ_θ = π_θ'/π_θ at the *meta*-policy, whose own cost is held (Xu and Zhu 2025)."""

    holds: ClassVar[tuple[ConstraintOn, ...]] = ("start",)
    predicts_return: ClassVar[bool] = True

    def __call__(
        self,
        policy: Policy,
        inner: PolicyUpdate,
        constraint_on: ConstraintOn,
        theta: Float[Array, " n"],
        inner_state: InnerState,
        data: TaskData,
    ) -> LossAndConstraints:
        drawn = eqx.tree_at(lambda D: D.log_prob, data.last, _log_prob(policy, data.start, data.last))
        return surrogates(policy, theta, drawn)[0], _constraints(policy, constraint_on, theta, theta[None], data)


META_GRADIENTS: dict[str, MetaGradient] = {"exact": Exact(), "first_order": FirstOrder(), "e_maml": EMAML()}


def _adapted(
    policy: Policy,
    constraint_on: ConstraintOn,
    phi: Float[Array, " n"],
    path: Float[Array, "K n"],
    data: TaskData,
) -> LossAndConstraints:
    """L_R of φ^K on its own data, and c of the policies that are held under the limit."""
    F, c = surrogates(policy, phi, data.last)
    return F, c if constraint_on == "adapted" else _constraints(policy, constraint_on, phi, path, data)


def _constraints(
    policy: Policy,
    constraint_on: ConstraintOn,
    phi: Float[Array, " n"],
    path: Float[Array, "K n"],
    data: TaskData,
) -> Float[Array, " p"]:
    """c of the meta-policy, or of every φ⁰..φ^K."""
    at = jax.vmap(lambda p, D: surrogates(policy, p, D)[1])
    if constraint_on == "start":
        return at(path[:1], jax.tree.map(lambda x: x[:1], data.batches))[0]
    before = at(path, data.batches)
    return jnp.append(before.ravel(), surrogates(policy, phi, data.last)[1])


def _log_prob(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, " N"]:
    return policy(phi, batch.z).log_prob(batch.action)


def _score(policy: Policy, phi: Float[Array, " n"], batch: Batch) -> Float[Array, ""]:
    """Σ over all steps of log π_φ(a|s) − log π_data(a|s): 0 in value at φ_data, the data's score in its gradient."""
    counts = (batch.weight > 0).astype(batch.weight.dtype)
    return jnp.sum(counts * (_log_prob(policy, phi, batch) - batch.log_prob))
