"""What differs between the CMDPs of a family: a task, and the distributions that tasks are drawn from."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from metacpo.runtime.numeric import one_number, shown, single_of

SPLITS = ("train", "held-out", "shifted")
LARGEST = float(np.finfo(np.float32).max)
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

    def number(self, what: str, value: object) -> float:
        """The value as a float. Raises TaskError, which begins with `what`, if it is none that is allowed."""
        number, allowed = _number(value), f"[{self.low:g}, {self.high:g}] {self.unit}"
        if number is None:
            raise TaskError(f"{what}: {shown(value)} is of type {type(value).__name__}, not a number in {allowed}")
        if not self.low <= number <= self.high:  # NaN fails the comparison
            raise TaskError(f"{what}: {shown(value)} is not in {allowed}")
        if math.isinf(single_of(number)):
            raise TaskError(f"{what}: {shown(value)} is infinite in float32, which is what programs compute in")
        if self.whole and number != round(number):
            raise TaskError(f"{what}: {shown(value)} is not a whole number of {self.unit}")
        return number


@dataclass(frozen=True, eq=False)  # hashable, as a static argument of jit must be
class TaskDistribution:
    """Tasks of one family: `train` and `held-out` share a distribution, `shifted` has another.

    draw maps "train" and "shifted" to a sampler of the parameters. Held-out tasks are fresh draws from the
    train ranges: the split is folded into the key, so no training run sees them.

    limit_factors: the range that a drawn task's share of `cost_limit` is uniform in, one draw for all m limits.
    check raises TaskError for parameters that are each allowed, but not together.

    Limits and ranges that are no numbers are a TaskError when it is made, samplers that fail are one when they draw.
    """

    parameters: Mapping[str, Parameter]
    draw: Mapping[str, Callable[[Key[Array, ""]], dict[str, Float[Array, ""]]]]
    cost_limit: tuple[float, ...]
    limit_factors: tuple[float, float] = (1.0, 1.0)
    check: Callable[[dict[str, Float[Array, ""]]], None] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.cost_limit, tuple | list):
            raise TaskError(f"cost_limit: {shown(self.cost_limit)} is not a tuple; give one number for each cost")
        for limit in self.cost_limit:
            number = _number(limit)
            if number is None or not 0 <= number <= LARGEST:
                raise TaskError(f"cost_limit: {shown(limit)} is not a number in [0, {LARGEST:g}]")
        for name, field in self.parameters.items():
            for part in ("default", "low", "high"):
                number = _number(getattr(field, part))
                if number is None or math.isnan(number):
                    raise TaskError(f"parameters.{name}: {part} is {shown(getattr(field, part))}, not a number")
        low, high = (_number(factor) for factor in self.limit_factors)
        if low is None or high is None or not 0 <= low <= high < math.inf:
            raise TaskError(f"limit_factors: {shown(self.limit_factors)} is not (low, high), 0 <= low <= high")

    def sample(self, key: Key[Array, ""], split: str = "train") -> Task:
        """One task of `split`; vmap over keys for several. Raises TaskError for a split that cannot be drawn."""
        if split not in SPLITS:
            raise TaskError(f"split: {split!r} is not one of {', '.join(SPLITS)}")
        drawn = "shifted" if split == "shifted" else "train"
        if drawn not in self.draw:
            raise TaskError(f"draw: has no {drawn!r}; give a sampler for 'train' and one for 'shifted'")
        key = jax.random.fold_in(key, SPLITS.index(split))
        limit = jnp.asarray(self.cost_limit, jnp.float32)
        low, high = self.limit_factors
        if low != high:
            factor_key = jax.random.fold_in(key, LIMIT)
            limit = limit * jax.random.uniform(factor_key, (), jnp.float32, minval=low, maxval=high)
        else:
            limit = low * limit
        params = self.draw[drawn](key)
        _require_numbers(drawn, params)
        return Task(limit, params)

    def sample_batch(self, key: Key[Array, ""], count: int, split: str = "train") -> Task:
        """`count` independent tasks, stacked on a leading axis."""
        return jax.vmap(lambda k: self.sample(k, split))(jax.random.split(key, count))

    def make(self, params: Mapping[str, object]) -> Task:
        """The task with these parameters, reference values elsewhere. Raises TaskError on what is not allowed."""
        for name in params:
            if name not in self.parameters:
                raise TaskError(f"task: unknown field {name!r}; allowed: {', '.join(self.parameters)}")
        values = {name: params.get(name, field.default) for name, field in self.parameters.items()}
        numbers = {name: self.parameters[name].number(f"task.{name}", value) for name, value in values.items()}
        arrays = {name: jnp.asarray(number, jnp.float32) for name, number in numbers.items()}
        if self.check is not None:
            self.check(arrays)
        return Task(jnp.asarray(self.cost_limit, jnp.float32), arrays)

    def with_cost_limit(self, cost_limit: tuple[float, ...]) -> "TaskDistribution":
        """The same tasks under other limits."""
        return replace(self, cost_limit=cost_limit)


def with_cost_limit(tasks: Task, cost_limit: float | tuple[float, ...]) -> Task:
    """The same task (or batch of tasks) under other limits: one for all constraints, or one for each."""
    limits = jnp.asarray(cost_limit, tasks.cost_limit.dtype)
    return Task(jnp.broadcast_to(limits, tasks.cost_limit.shape), tasks.params)


def _number(value: object) -> float | None:
    """`value` as a float if it is one number, else None. One that no float can hold is infinite: beyond all ranges."""
    try:
        return one_number(value)
    except OverflowError:
        return math.inf


def _require_numbers(split: str, params: object) -> None:
    """Raises TaskError if a sampler drew anything but one number for each parameter."""
    if not isinstance(params, dict):
        raise TaskError(f"draw: {split!r} gives {shown(params)}; wanted a dict with one number for each parameter")
    for name, value in params.items():
        if jnp.shape(value) != ():
            raise TaskError(f"draw: {split!r} gives {name} with shape {jnp.shape(value)}; wanted one number, shape ()")
