"""Every algorithm by name, each one composition of the same parts; `docs/algorithms.md` compares them.

A docstring names the paper and says where we differ from it. "Pooled" algorithms are trained on the data of all
tasks together, without inner steps, and fine-tuned on a new task by as many of the same updates as a meta-learner
gets. All updates have the same trust regions, critics, normaliser and line search (docs/adaptation.md), so that two
algorithms differ only where their docstrings do.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from metacpo.algorithms.meta import Algorithm, MetaSettings
from metacpo.algorithms.objectives import CRPOSwitch, Penalty, PIDLagrangian
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.steps import GradientStep, KLPenalisedStep, NaturalGradientStep, PCPOStep, TRPOStep
from metacpo.algorithms.trust_region import TrustRegionSettings


class CompositionError(ValueError):
    """A composition that makes no sense; the message names the field, what was given and what is allowed."""


@dataclass(frozen=True)
class RuleSettings:
    """Numbers of single rules; an algorithm reads those that its docstring names."""

    penalty: float = 1.0
    """Price of cost in a penalised objective, in reward."""
    multiplier: float = 1.0
    """First Lagrange multiplier, reward per cost."""
    proportional: float = 0.0
    """Of the multiplier's controller; with derivative 0 it is dual gradient ascent."""
    integral: float = 5.0
    """Of the multiplier's controller: the step size of dual ascent."""
    derivative: float = 0.0
    """Of the multiplier's controller."""
    tolerance: float = 0.0
    """Cost per step above the limit at which a CRPO switch turns to the cost."""
    step_size: float = 0.1
    """Of gradient steps and of natural gradient steps of a given size."""
    kl_price: float = 2.0
    """λ of safe-meta: what a nat of divergence costs, in reward per step."""
    kl_cost_price: float = 0.0
    """λ_c of safe-meta: what a nat of divergence adds to the cost per step that is foreseen."""


@dataclass(frozen=True)
class Parts:
    """What compositions are made of: the regions of the inner and the outer steps, and the settings."""

    inner: TrustRegionSettings
    outer: TrustRegionSettings
    meta: MetaSettings
    rule: RuleSettings

    @property
    def multiplier(self) -> PIDLagrangian:
        return PIDLagrangian(self.rule.proportional, self.rule.integral, self.rule.derivative)


def meta_cpo(parts: Parts) -> Algorithm:
    """Meta-CPO (Cho and Sun 2024, arXiv 2312.10230): CPO inside, CPO outside, the exact meta-gradient.

    Differs from the paper in what docs/paper_map.md lists: the KL metric, fresh tasks, aiming below the limit.
    Reads `meta.meta_gradient`, `meta.meta_constraints`, `meta.constraint_on` and `meta.learned` ("scale").
    """
    return Algorithm(
        inner=PolicyUpdate(region=parts.inner),
        outer=PolicyUpdate(region=parts.outer),
        gradient=parts.meta.meta_gradient,
        constraint_on=parts.meta.constraint_on,
        per_task=parts.meta.meta_constraints == "per_task",
        learned=parts.meta.learned,
    )


def meta_trpo(parts: Parts) -> Algorithm:
    """MAML (Finn et al. 2017, eqs. 1-2) with TRPO's step inside and outside; blind to the cost.

    Differs from MAML-TRPO: the inner step is TRPO's too, as in the baseline of the Meta-CPO paper. Reads
    `meta.meta_gradient` and `meta.learned` ("scale").
    """
    return Algorithm(
        inner=PolicyUpdate(step=TRPOStep(), region=parts.inner),
        outer=PolicyUpdate(step=TRPOStep(), region=parts.outer),
        gradient=parts.meta.meta_gradient,
        learned=parts.meta.learned,
        reads_costs=False,
    )


def cpo(parts: Parts) -> Algorithm:
    """CPO (Achiam et al. 2017, eqs. 10-14), pooled."""
    return Algorithm(PolicyUpdate(region=parts.inner), PolicyUpdate(region=parts.outer), adapts=False)


def trpo(parts: Parts) -> Algorithm:
    """TRPO (Schulman et al. 2015), pooled; blind to the cost."""
    return _pooled(PolicyUpdate(step=TRPOStep()), parts, reads_costs=False)


def pcpo(parts: Parts) -> Algorithm:
    """PCPO (Yang et al. 2020, eq. 6) with projection in the KL metric, pooled. One constraint.

    Differs: the paper recovers from infeasibility by its projection alone; so do we, held to δ by the line search.
    """
    return _pooled(PolicyUpdate(step=PCPOStep()), parts)


def cpo_lagrangian(parts: Parts) -> Algorithm:
    """CPO's constrained step on the Lagrangian (Stooke et al. 2020 for the multiplier), pooled.

    The multiplier keeps its memory where a linearised constraint has none. Reads `rule.multiplier`, `proportional`,
    `integral`, `derivative`. The multiplier after training is the first one of fine-tuning.
    """
    return _pooled(PolicyUpdate(objective=parts.multiplier), parts)


def trpo_lagrangian(parts: Parts) -> Algorithm:
    """TRPO on the Lagrangian (Ray et al. 2019; PID multiplier: Stooke et al. 2020, algorithm 2), pooled.

    Settings as for cpo-lagrangian.
    """
    return _pooled(PolicyUpdate(objective=parts.multiplier, step=TRPOStep()), parts)


def meta_lagrangian(parts: Parts) -> Algorithm:
    """TRPO on the Lagrangian inside, CPO outside; the first multiplier of every task is meta-learned.

    Ours: no paper has it. The exact meta-gradient goes through the multiplier's controller too. Settings as for
    cpo-lagrangian; `meta.learned` is added to "multiplier".
    """
    base = meta_cpo(parts)
    learned = tuple(dict.fromkeys(("multiplier", *base.learned)))
    return replace(
        base, inner=PolicyUpdate(objective=parts.multiplier, step=TRPOStep(), region=parts.inner), learned=learned
    )


def maml_penalty(parts: Parts) -> Algorithm:
    """MAML on L_R + `rule.penalty`·c: gradient steps of size `rule.step_size` inside, TRPO's step outside.

    The baseline "MAML + penalty" of Xu and Zhu (2025). The inner steps have no line search, as MAML's.
    """
    penalty = Penalty(parts.rule.penalty)
    return Algorithm(
        inner=PolicyUpdate(penalty, GradientStep(parts.rule.step_size), parts.inner),
        outer=PolicyUpdate(penalty, TRPOStep(), parts.outer),
        gradient=parts.meta.meta_gradient,
    )


def safe_meta(parts: Parts) -> Algorithm:
    """Efficient Safe Meta-RL (Xu and Zhu, NeurIPS 2025): closed-form adaptation, a gradient without Hessians.

    Inner: `KLPenalisedStep` with `rule.kl_price`, `rule.kl_cost_price`. Outer: TRPO's step on the return of adapted
    policies or, where the *meta-policy's* own cost is above its limit by `rule.tolerance`, on that cost (CRPO's
    switch). Differs: the tilt of the policy is a natural gradient step (steps.py says when they are the same), held to
    `inner`'s region by a line search; the paper adapts by one step, `meta.steps` says how many here.
    """
    penalised = KLPenalisedStep(parts.rule.kl_price, parts.rule.kl_cost_price)
    return Algorithm(
        inner=PolicyUpdate(step=penalised, region=parts.inner),
        outer=PolicyUpdate(CRPOSwitch(parts.rule.tolerance), TRPOStep(), parts.outer),
        gradient="hessian_free",
        constraint_on="start",
    )


def c_maml(parts: Parts) -> Algorithm:
    """Constrained MAML (Daaboul et al. 2024, arXiv 2406.14047): first-order, the meta-policy itself held safe.

    Inner: a constrained optimiser, CPO here. Outer: CPO's step with the first-order meta-gradient, the constraint on
    the meta-policy's own cost, which one safety critic for all tasks estimates. Differs: the paper's constrained
    optimisers are Lagrangian ones.
    """
    return Algorithm(
        inner=PolicyUpdate(region=parts.inner),
        outer=PolicyUpdate(region=parts.outer),
        gradient="first_order",
        constraint_on="start",
        global_critic=True,
    )


def meta_crpo(parts: Parts) -> Algorithm:
    """In the spirit of Meta-SRL (Khattar et al. 2023): CRPO inside, its start and step size learned by regret bounds.

    Inner: CRPO (Xu, Liang and Lan 2021), natural gradient steps of a learned size (first `rule.step_size`). Outer: a
    TRPO step on the bound of `meta_gradient.py`, in θ and log η. Differs: the comparator is the adapted policy and its
    own states instead of a DualDICE estimate of the optimum's; function approximation instead of softmax tables.
    """
    switch = CRPOSwitch(parts.rule.tolerance)
    return Algorithm(
        inner=PolicyUpdate(switch, NaturalGradientStep(parts.rule.step_size), parts.inner),
        outer=PolicyUpdate(switch, TRPOStep(), parts.outer),
        gradient="regret_bound",
        learned=("scale",),
    )


ALGORITHMS: dict[str, Callable[[Parts], Algorithm]] = {
    "meta-cpo": meta_cpo,
    "meta-trpo": meta_trpo,
    "cpo": cpo,
    "trpo": trpo,
    "pcpo": pcpo,
    "cpo-lagrangian": cpo_lagrangian,
    "trpo-lagrangian": trpo_lagrangian,
    "meta-lagrangian": meta_lagrangian,
    "maml-penalty": maml_penalty,
    "safe-meta": safe_meta,
    "c-maml": c_maml,
    "meta-crpo": meta_crpo,
}


def compose(name: str, parts: Parts, m: int) -> Algorithm:
    """The algorithm `name` of these parts for m constraints. Raises CompositionError for what makes no sense."""
    algorithm, meta = ALGORITHMS[name](parts), parts.meta
    limiting = ", ".join(known for known in ALGORITHMS if ALGORITHMS[known](parts).per_task or known in _HOLDING)

    def refuse(field: str, given: object, why: str) -> None:
        raise CompositionError(f"{field}: {given!r} {why}")

    if algorithm.adapts and meta.steps == 0:
        refuse(
            "meta.steps", 0, f"leaves algorithm {name!r} nothing to learn through; take 1 or more, or algorithm 'cpo'"
        )
    if meta.meta_constraints == "per_task" and name not in _HOLDING:
        refuse("meta.meta_constraints", "per_task", f"is not for algorithm {name!r}; allowed with {limiting}")
    if meta.constraint_on == "every" and name not in _HOLDING:
        refuse("meta.constraint_on", "every", f"is not for algorithm {name!r}; allowed with {limiting}")
    if meta.constraint_on == "every" and meta.meta_gradient == "e_maml":
        refuse("meta.constraint_on", "every", "is not for meta.meta_gradient 'e_maml'; take 'exact' or 'first_order'")
    if meta.meta_gradient != "exact" and algorithm.gradient != meta.meta_gradient:
        refuse("meta.meta_gradient", meta.meta_gradient, f"is not for algorithm {name!r}, which has its own or none")
    if extra := set(meta.learned) - set(algorithm.learned):
        refuse("meta.learned", sorted(extra), f"is not for algorithm {name!r}")
    if "multiplier" in meta.learned and not isinstance(algorithm.inner.objective, PIDLagrangian):
        refuse("meta.learned", ["multiplier"], f"is not for algorithm {name!r}, which has no multiplier")
    if isinstance(algorithm.inner.step, PCPOStep) and m > 1:
        refuse("constraints", "each", f"is not for algorithm {name!r}, which projects onto one; take 'sum'")
    return algorithm


_HOLDING = ("meta-cpo", "meta-lagrangian")  # outer steps with a constraint on adapted policies


def _pooled(rule: PolicyUpdate, parts: Parts, reads_costs: bool = True) -> Algorithm:
    """The same rule in training and in fine-tuning, each with its own region."""
    inner, outer = (replace(rule, region=region) for region in (parts.inner, parts.outer))
    return Algorithm(inner, outer, adapts=False, reads_costs=reads_costs)
