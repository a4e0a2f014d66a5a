"""F and G of an inner loop as functions of θ: what the outer step lowers, and what it keeps below 0.

    F(θ) = mean_i F_i(θ),   G(θ) = mean_i c_i(θ), or every c_i(θ)

F_i and c_i are those of a `MetaGradient`. Every task looks at its own copy of θ, so that one pass backward gives all
tasks' gradients.
"""

from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.algorithms.acceptance import LossAndConstraints, StepStats
from metacpo.algorithms.finite import masked_mean, task_weights
from metacpo.algorithms.inner_loop import ConstraintOn, InnerLoop
from metacpo.algorithms.inner_state import InnerState, InnerStateName, unpack
from metacpo.algorithms.meta_gradients import Exact, MetaGradient, MetaProblem, TaskData
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.estimation import Batch
from metacpo.policies import Policy
from metacpo.runtime.devices import spread
from metacpo.solver import row_sizes


class MetaRows(eqx.Module):
    """The gradients of F (row 0) and of the p constraints, task by task, each times its task's weight/M; and G.

    value: (F, G) as the objective itself says, which leaves no task out because of its gradient.
    """

    rows: Float[Array, "r M k"]
    G: Float[Array, " G"]
    value: LossAndConstraints
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
    gradient: MetaGradient = field(default_factory=Exact)
    constraint_on: ConstraintOn = "adapted"
    per_task: bool = False
    learned: tuple[InnerStateName, ...] = ()

    def __call__(
        self, packed: Float[Array, " k"], theta: Float[Array, " n"], inner_state: InnerState, loop: InnerLoop
    ) -> tuple[Float[Array, ""], Float[Array, " G"]]:
        """F, the mean over valid tasks, and G: c's mean over them, or with `per_task` the c of each task, [M · p].

        theta and inner_state are where the loop started, constants. A task of weight 0 has c = 0: nothing to hold.
        """
        F, c = spread(self._values, AXES, out_axes=0)(self._every(packed, loop), theta, inner_state, *_parts(loop))
        return self._means(F, c, loop)

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
        M = loop.phi.shape[0]

        def of_tasks(packed: Float[Array, "M k"], *constants):
            (F, c), pullback = jax.vjp(lambda P: self._values(P, *constants), packed)
            p = c.shape[1]
            unit = jnp.broadcast_to(jnp.eye(p + 1, dtype=packed.dtype)[:, None] / M, (p + 1, c.shape[0], p + 1))
            (rows,) = jax.lax.map(pullback, (unit[..., 0], unit[..., 1:]))  # [1 + p, M, k]
            return F, c, rows

        F, c, rows = spread(of_tasks, AXES, out_axes=(0, 0, 1))(
            self._every(packed, loop), theta, inner_state, *_parts(loop)
        )
        value = self._means(F, c, loop)
        task_weight = task_weights((loop.task_weight > 0) & jnp.all(jnp.isfinite(rows), axis=(0, 2)), packed.dtype)
        rows = jnp.where(task_weight[:, None] > 0, rows, 0.0)
        return MetaRows(
            task_weight[:, None] * rows,
            self._constraints(c, self._margins(loop), task_weight),
            value,
            task_weight,
            self.per_task,
        )

    def _means(self, F: Float[Array, " M"], c: Float[Array, "M p"], loop: InnerLoop) -> LossAndConstraints:
        """(F, G) of every task's F_i and c_i."""
        return masked_mean(F, loop.task_weight), self._constraints(c, self._margins(loop), loop.task_weight)

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
        if self.constraint_on == "none":
            return last[:, :0]
        if self.constraint_on == "start":
            return before[0]
        if self.constraint_on == "adapted":
            return last
        return jnp.concatenate([jnp.swapaxes(before, 0, 1).reshape(last.shape[0], -1), last], axis=1)

    def _every(self, packed: Float[Array, " k"], loop: InnerLoop) -> Float[Array, "M k"]:
        return jnp.broadcast_to(packed, (loop.phi.shape[0], *packed.shape))

    def _values(
        self, packed: Float[Array, "M k"], theta: Float[Array, " n"], inner_state: InnerState, *parts
    ) -> tuple[Float[Array, " M"], Float[Array, "M p"]]:
        """F_i and c_i of every task, each at its own Θ, from a loop that started at θ and its `_parts`."""

        problem = MetaProblem(self.policy, self.inner, self.constraint_on)

        def task(packed: Float[Array, " k"], theta: Float[Array, " n"], inner_state: InnerState, *parts):
            new, new_inner_state = unpack(packed, inner_state, self.learned)
            return self.gradient(problem, new, new_inner_state, TaskData(theta, *parts))

        return jax.vmap(task, AXES)(packed, theta, inner_state, *parts)


AXES = (0, None, None, 1, 1, 0, 0, 0)  # which axis counts tasks, of the arguments of `MetaObjective._values`


def _parts(loop: InnerLoop) -> tuple[Batch, StepStats, Batch, Float[Array, "M n"], Float[Array, "M k"]]:
    """What `TaskData` has of a loop beside its start."""
    return loop.batches, loop.updates, loop.last, loop.phi, _credit(loop)


def _credit(loop: InnerLoop) -> Float[Array, "M k"]:
    """Per task, what its adapted loss and constraints (per step) are above the mean of the other tasks'."""
    adapted = jax.tree.map(lambda x: x[-1], loop.stats)
    loss = -adapted.episode_return / jnp.maximum(adapted.length, 1.0)
    values = jnp.concatenate([loss[:, None], loop.last.c], axis=1)
    M = values.shape[0]
    return values if M == 1 else (values - jnp.mean(values, axis=0)) * (M / (M - 1))
