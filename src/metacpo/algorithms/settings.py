"""Settings of algorithms: how many tasks and steps, what the outer step looks at, and the numbers of single rules."""

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from metacpo.algorithms.inner_state import InnerStateName
from metacpo.runtime.numeric import Range


@dataclass(frozen=True)
class MetaSettings:
    """M tasks a meta-iteration, K inner steps, B episodes a rollout; and how the outer step looks at them."""

    tasks: Annotated[int, Range("[1, inf)")] = 5
    steps: Annotated[int, Range("[0, inf)")] = 5
    episodes: Annotated[int, Range("[1, inf)")] = 8
    meta_gradient: Literal["exact", "first_order", "e_maml"] = "exact"
    """Through the inner steps; taking these for constants; or with E-MAML's term for the data that θ draws."""
    meta_constraints: Literal["mean", "per_task"] = "mean"
    """One pooled mean of the tasks' costs under their limits (the paper), or every task's own."""
    constraint_on: Literal["adapted", "every"] = "adapted"
    """Whose cost the outer step keeps under the limit: the adapted policy's, or that of all steps 0..K (anytime)."""
    learned: tuple[InnerStateName, ...] = ()
    """Numbers that are meta-learned beside θ: "scale" of the inner steps, first "multiplier" of a Lagrangian."""


@dataclass(frozen=True)
class RuleSettings:
    """Numbers of single rules; `Algorithm.reads` names those that an algorithm reads."""

    penalty: Annotated[float, Range("[0, inf)")] = 1.0
    """Price of cost in a penalised objective, in reward."""
    multiplier: Annotated[float, Range("(0, inf)")] = 1.0
    """First Lagrange multiplier, reward per cost."""
    proportional: Annotated[float, Range("[0, inf)")] = 0.0
    """Of the multiplier's controller; with derivative 0 it is dual gradient ascent."""
    integral: Annotated[float, Range("[0, inf)")] = 5.0
    """Of the multiplier's controller: the step size of dual ascent."""
    derivative: Annotated[float, Range("[0, inf)")] = 0.0
    """Of the multiplier's controller."""
    tolerance: Annotated[float, Range("[0, inf)")] = 0.0
    """Cost per step above the limit at which a CRPO switch turns to the cost."""
    step_size: Annotated[float, Range("(0, inf)")] = 0.1
    """Of gradient steps and of natural gradient steps of a given size."""
    kl_price: Annotated[float, Range("(0, inf)")] = 2.0
    """λ of safe-meta: what a nat of divergence costs, in reward per step."""
    kl_cost_price: Annotated[float, Range("[0, inf)")] = 0.0
    """λ_c of safe-meta: what a nat of divergence adds to the cost per step that is foreseen."""


# Settings that some algorithms read and others do not, by dotted name. All others are every algorithm's.
OPTIONAL = (
    "meta.meta_gradient",
    "meta.meta_constraints",
    "meta.constraint_on",
    "meta.learned",
    "estimation.outer_confidence",
    *(f"rule.{item.name}" for item in fields(RuleSettings)),
)
