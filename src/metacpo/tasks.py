"""What differs between the CMDPs of a family: a task, and the distributions that tasks are drawn from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from metacpo.settings import single_of

SPLITS = ("train", "held-out", "shifted")
LIMIT = 0x1107  # folded into a task's key for its limit; its parameters have the key itself


class Task(eqx.Module):
    """One task, an argument of every environment function (never a mutation).

    cost_limit: h_j of each of the m constraints, in the units of the cost measure that the run limits.
    params: the family's physical parameters by name, SI units.
    """

    cost_limit: Float[Array, "*batch m"]
    params: dict[str, Float[Array, "*batch"]]


class TaskError(ValueError):
    """A task that the family does not allow; the message names the field, the value and what is allowed."""


@dataclass(frozen=True)
class Parameter:
    """A parameter's reference value, its allowed range (both ends included), its unit, and whether it counts things."""

    default: float
    low: float
    high: float
    unit: str
    whole: bool = False


@dataclass(frozen=True, eq=False)  # hashable, as a static argument of jit must be
class TaskDistribution:
    """Tasks of one family: `train` and `held-out` share a distribution, `shifted` has another.

    draw maps "train" and "shifted" to a sampler of the parameters. Held-out tasks are fresh draws from the
    train ranges: the split is folded into the key, so no training run sees them.

    limit_factors: the range that a drawn task's share of `cost_limit` is uniform in, one draw for all m limits.
    check raises TaskError for parameters that are each allowed, but not together.
    """

    parameters: Mapping[str, Parameter]
    draw: Mapping[str, Callable[[Key[Array, ""]], dict[str, Float[Array, ""]]]]
    cost_limit: tuple[float, ...]
    limit_factors: tuple[float, float] = (1.0, 1.0)
    check: Callable[[dict[str, Float[Array, ""]]], None] | None = None

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        """One task of `split`; vmap over keys for several. Raises TaskError for an unknown split."""
        if split not in SPLITS:
            raise TaskError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
        sampler = self.draw["shifted" if split == "shifted" else "train"]
        key = jax.random.fold_in(key, SPLITS.index(split))
        limit = jnp.asarray(self.cost_limit, jnp.float32)
        low, high = self.limit_factors
        if low != high:
            factor_key = jax.random.fold_in(key, LIMIT)
            limit = limit * jax.random.uniform(factor_key, (), jnp.float32, minval=low, maxval=high)
        else:
            limit = low * limit
        return Task(limit, sampler(key))

    def sample_batch(self, key: Key[Array, ""], count: int, split: str = "train") -> Task:
        """`count` independent tasks, stacked on a leading axis."""
        return jax.vmap(lambda k: self.sample(k, split))(jax.random.split(key, count))

    def make(self, params: Mapping[str, object]) -> Task:
        """The task with these parameters, reference values elsewhere. Raises TaskError on what is not allowed."""
        for name in params:
            if name not in self.parameters:
                raise TaskError(f"task: unknown field {name!r}; allowed: {', '.join(self.parameters)}")
        values = {name: params.get(name, field.default) for name, field in self.parameters.items()}
        for name, value in values.items():
            field = self.parameters[name]
            # NaN and infinity fail the comparison; true and false are numbers to Python, but not here.
            number = value if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
            if not field.low <= number <= field.high:
                raise TaskError(f"task.{name}: {value!r} is not in [{field.low:g}, {field.high:g}] {field.unit}")
            if math.isinf(single_of(number)):
                raise TaskError(f"task.{name}: {value!r} is infinite in float32, which is what programs compute in")
            if field.whole and number != round(number):
                raise TaskError(f"task.{name}: {value!r} is not a whole number of {field.unit}")
        arrays = {name: jnp.asarray(value, jnp.float32) for name, value in values.items()}
        if self.check is not None:
            self.check(arrays)
        return Task(jnp.asarray(self.cost_limit, jnp.float32), arrays)

    def with_cost_limit(self, cost_limit: tuple[float, ...]) -> "TaskDistribution":
        """The same tasks under other limits."""
        return replace(self, cost_limit=cost_limit)


def with_cost_limit(tasks: Task, cost_limit: float) -> Task:
    """The same task (or batch of tasks) under another limit on every constraint."""
    return Task(jnp.full_like(tasks.cost_limit, cost_limit), tasks.params)
