"""The health rules: what is worth a warning in the rows of metrics.csv, what it means and what to do. No JAX here."""

from collections.abc import Callable
from dataclasses import dataclass

from metacpo.training.symptoms import (
    Columns,
    always_binds,
    counted,
    derivatives_bounded,
    drifts,
    infeasible,
    inner_rejected,
    lost,
    never_binds,
    out_of_reach,
    outer_rejected,
    solves_inexact,
    too_large,
)


@dataclass(frozen=True)
class HealthRule:
    """What is seen when `fires` says so of exactly `window` rows, what it means, and what to do about it.

    `fires` gets the columns and the tag of the cost that the limit limits.
    """

    name: str
    threshold: str
    meaning: str
    advice: str
    window: int
    fires: Callable[[Columns, str], bool]
    each: bool = False  # of several constraints, every one is looked at on its own


RULES = (
    HealthRule(
        "worlds broke",
        "Metrics/NonFinite > 0",
        "An observation, a reward or a cost was not finite; those worlds were left out from that step on.",
        "Look at the environment: a time step too long for its contacts is the usual cause.",
        1,
        counted("Metrics/NonFinite"),
    ),
    HealthRule(
        "reward or cost too large",
        "a mean return or cost of an episode above 1e15, or not finite",
        "Every step's number is finite, but sums or squares of them are more than float32 holds; updates were dropped.",
        "Scale the reward and the cost to the size of 1 a step: `metacpo check-env` says which one is too large.",
        1,
        too_large,
    ),
    HealthRule(
        "observations too large",
        "Misc/ObservationsLeftOut > 0",
        "The square of an observation is more than float32 holds; it was not normalised, and policies see it clipped.",
        "Scale that observation to the size of 1, or leave it out: `metacpo check-env` says which one it is.",
        1,
        counted("Misc/ObservationsLeftOut"),
    ),
    HealthRule(
        "critics exploded",
        "Misc/CriticNonFinite > 0",
        "A critic gave values that are not finite; its advantages were returns instead, noisier but right.",
        "Scale the reward or the cost to the size of 1 a step, or take the other critic (estimation.critic).",
        1,
        lost("Misc/CriticNonFinite"),
    ),
    HealthRule(
        "tasks left out",
        "Misc/TasksLeftOut > 0",
        "Tasks without a single valid step, or with a number that is not finite, had no share in the outer update.",
        "See which tasks break all their worlds, and keep the distribution of tasks away from them.",
        1,
        lost("Misc/TasksLeftOut"),
    ),
    HealthRule(
        "inner updates not finite",
        "Misc/NonFiniteUpdates > 0",
        "Inner updates were rejected because a number was not finite or H singular; these policies did not move.",
        "Raise inner.damping; if that does not help, repeat the iteration with --debug-nans.",
        1,
        lost("Misc/NonFiniteUpdates"),
    ),
    HealthRule(
        "outer update not finite",
        "Meta/NonFinite > 0",
        "A task's meta-gradient or the outer step was not finite, and was dropped.",
        "Raise outer.damping or take fewer inner steps; --debug-nans stops at the first one.",
        1,
        lost("Meta/NonFinite"),
    ),
    HealthRule(
        "infeasible",
        "over half of the updates of 10 meta-iterations",
        "No step within the trust region met the limit, so that updates only lowered the cost.",
        "Normal while the first policies learn; if it stays, raise cost_limit or max_kl, or lower the confidence.",
        10,
        infeasible,
    ),
    HealthRule(
        "outer steps rejected",
        "5 in a row",
        "The line search found no step that passes the acceptance test, and the meta-policy did not move.",
        "Raise outer.damping or lower outer.max_kl; more episodes make the data agree with themselves.",
        5,
        outer_rejected,
    ),
    HealthRule(
        "inner steps rejected",
        "over half of those of 5 meta-iterations",
        "Most policies did not adapt, because the line search found no step that passes the acceptance test.",
        "Raise inner.damping or lower inner.max_kl; more episodes (meta.episodes) make the data less noisy.",
        5,
        inner_rejected,
    ),
    HealthRule(
        "KL never binds",
        "mean KL below 5 % of the region over 10 meta-iterations",
        "Steps are far shorter than allowed: the damping, not the divergence, decides how far they go.",
        "Lower the damping of these updates, or see why the line search shortens them (Misc/Alpha, Meta/Alpha).",
        10,
        never_binds,
    ),
    HealthRule(
        "KL always binds while the return falls",
        "KL at least 95 % of the region in 10 meta-iterations, return down by two standard errors",
        "Every step goes to the edge of the region and they lead down: the model is trusted too far.",
        "Lower max_kl, or collect more episodes a task.",
        10,
        always_binds,
    ),
    HealthRule(
        "linear solves inexact",
        "mean relative residual above 0.1 (inner) or 0.5 (outer) over 10 meta-iterations",
        "Conjugate gradients stop before H⁻¹v is found, so that steps point elsewhere than they should.",
        "Raise the damping, or cg_iterations.",
        10,
        solves_inexact,
    ),
    HealthRule(
        "limit out of reach",
        "cost above the limit in 20 meta-iterations, most updates infeasible or recovering",
        "Updates work on the cost and no policy got below the limit: maybe none can.",
        "Compare cost_limit with what a cautious policy costs, and check estimation.cost_measure.",
        20,
        out_of_reach,
        each=True,
    ),
    HealthRule(
        "normaliser drift",
        "mean of Misc/NormaliserDrift above 1 over 10 meta-iterations",
        "Observations lie more than a standard deviation from where the normaliser expects them.",
        "Smaller outer steps, or a longer warm-up, let it follow; an observation that grows without end never fits.",
        10,
        drifts,
    ),
    HealthRule(
        "meta-gradient often bounded",
        "over half of the inner or of the outer updates of 10 meta-iterations",
        "Steps lie where their derivative is unbounded or undefined, and a bounded stand-in took its place.",
        "Usual where constraint and objective are parallel, or nothing costs; more episodes or a higher limit help.",
        10,
        derivatives_bounded,
    ),
)
