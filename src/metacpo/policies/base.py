"""What the algorithms need of a policy: π_φ(a|s), its KL divergence and the product with its Fisher matrix."""

from typing import Any, Protocol, TypeVar, runtime_checkable

import lineax
from jaxtyping import Array, Float, Key

Same = TypeVar("Same")  # of one family: a Gaussian and a Gaussian


@runtime_checkable
class Distribution(Protocol):
    """Distributions over actions, one for each of a batch of states."""

    @property
    def mean(self) -> Float[Array, "*batch A"]:
        """The action taken when nothing is to be random."""
        ...

    @property
    def std(self) -> Float[Array, "*any A"]:
        """The standard deviation of every action, for the log; of every state, or one for all of them."""
        ...

    def sample(self, noise: Float[Array, "*batch A"]) -> Float[Array, "*batch A"]:
        """The action that standard normal `noise` stands for: a rollout draws the noise of all its steps at once."""
        ...

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]: ...

    def kl(self: Same, other: Same) -> Float[Array, "*batch"]:
        """KL(self ‖ other) in nats."""
        ...


@runtime_checkable
class Policy(Protocol):
    """A family π_φ, φ ∈ ℝⁿ: a description, not a container of φ, so that the algorithms read as the paper does.

    It is hashable, and equal to another one where it computes the same: compiled programs are told apart by it.
    Everything is differentiable in φ, in forward and in reverse mode, one over the other.
    """

    @property
    def observation_size(self) -> int: ...

    @property
    def size(self) -> int:
        """n, the number of parameters."""
        ...

    def init(self, key: Key[Array, ""], dtype: Any = float) -> Float[Array, " n"]:
        """The parameters before any training."""
        ...

    def __call__(self, phi: Float[Array, " n"], z: Float[Array, "*batch O"]) -> Distribution:
        """π_φ(·|s) at normalised observations z."""
        ...

    def fisher(
        self, phi: Float[Array, " n"], z: Float[Array, "*batch O"], weight: Float[Array, "*batch"], damping: float
    ) -> lineax.AbstractLinearOperator:
        """H = ∇²_φ' mean_s KL(π_φ ‖ π_φ')|_{φ'=φ} + damping·I as a positive definite operator, never a matrix.

        The mean over states is weighted by `weight`; 0 leaves a state out.
        """
        ...
