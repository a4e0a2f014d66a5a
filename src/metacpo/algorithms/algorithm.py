"""What an algorithm is: an inner and an outer update, the gradient that joins them, and what it can do."""

from collections.abc import Callable
from dataclasses import dataclass, field

from metacpo.algorithms.inner_loop import ConstraintOn
from metacpo.algorithms.inner_state import InnerStateName
from metacpo.algorithms.meta_gradients import Exact, MetaGradient
from metacpo.algorithms.objectives import PIDLagrangian
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.settings import MetaSettings, RuleSettings
from metacpo.algorithms.trust_region import TrustRegionSettings


@dataclass(frozen=True)
class Algorithm:
    """A composition: the update of the inner steps, that of the outer one, and what joins them.

    - adapts: whether training goes through inner steps; if not they only follow it, on the new task (fine-tuning).
    - gradient: of the outer step through the inner ones (meta_gradients.py).
    - constraint_on: whose cost the outer step keeps under the limit; per_task: every task's own, or the mean.
    - learned: what of the inner state is meta-learned beside θ; learnable: what may be.
    - reads_costs: False leaves the constraints out of all data (m = 0).
    - global_critic: one cost critic for the data of all tasks instead of one for each.
    - reads: which of the settings `OPTIONAL` the composition reads; another value than the default is refused for
      the others. most_constraints: the largest m, if there is one.
    """

    inner: PolicyUpdate
    outer: PolicyUpdate
    adapts: bool = True
    gradient: MetaGradient = field(default_factory=Exact)
    constraint_on: ConstraintOn = "adapted"
    per_task: bool = False
    learned: tuple[InnerStateName, ...] = ()
    learnable: tuple[InnerStateName, ...] = ("scale",)
    reads_costs: bool = True
    global_critic: bool = False
    reads: tuple[str, ...] = ()
    most_constraints: int | None = None


@dataclass(frozen=True)
class Parts:
    """What compositions are made of: the regions of the inner and the outer steps, and the settings."""

    inner: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    outer: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    meta: MetaSettings = field(default_factory=MetaSettings)
    rule: RuleSettings = field(default_factory=RuleSettings)

    @property
    def multiplier(self) -> PIDLagrangian:
        return PIDLagrangian(self.rule.proportional, self.rule.integral, self.rule.derivative)


Composition = Callable[[Parts], Algorithm]
