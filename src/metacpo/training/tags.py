"""What every column of metrics.csv means: the glossary of the tags."""

import re
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Tag:
    """The unit of a logged number and what it says. "adapted" is after the last inner step, φ^K."""

    unit: str
    description: str


# By the setting estimation.cost_measure, what the cost that the limit limits is called in the files of a run.
LIMITED_COST = {"episode": "Metrics/EpCost", "discounted": "Metrics/DiscountedCost"}  # in metrics.csv
LIMITED_COLUMN = {"episode": "episode_cost", "discounted": "discounted_cost"}  # in adaptation.csv
COST_LIMIT = "Metrics/CostLimit"

# {k} stands for the number of an inner step, {case} for a name of metacpo.solver.Case, {constraint} for a name of the
# environment's costs: such columns are there where a run has several constraints.
TAGS = {
    "Metrics/EpRet": Tag("return", "Mean undiscounted return of an episode, adapted."),
    "Metrics/EpCost": Tag("cost", "Mean undiscounted cost of an episode, adapted."),
    "Metrics/EpCost/{constraint}": Tag("cost", "The same of one of several constraints; without a name, their sum."),
    "Metrics/DiscountedCost": Tag("cost", "Mean discounted cost of an episode, adapted."),
    "Metrics/DiscountedCost/{constraint}": Tag("cost", "The same of one of several constraints."),
    "Metrics/CostLimit": Tag("cost", "Mean limit of the tasks, on the cost measure of the run."),
    "Metrics/CostLimit/{constraint}": Tag("cost", "The same of one of several constraints."),
    "Metrics/SatisfiedFraction": Tag("1", "Share of the tasks whose adapted cost is within the limit."),
    "Metrics/SatisfiedWhileAdapting": Tag("1", "Share of the policies before the last update within the limit."),
    "Metrics/ExcessWhileAdapting": Tag("cost", "Cost above the limit, summed over policies before the last update."),
    "Metrics/EpLen": Tag("steps", "Mean length of an episode."),
    "Metrics/NonFinite": Tag("worlds", "Worlds left out because something in them was not finite."),
    "Train/KL": Tag("nat", "Mean KL divergence of an inner update."),
    "Train/PolicyStd": Tag("action", "Mean standard deviation of the meta-policy's actions."),
    "Train/CostPredicted": Tag("cost", "Mean change of the limited cost that an inner update's surrogate predicts."),
    "Train/CostActual": Tag("cost", "Mean change of the limited cost that came true in the next batch."),
    "Train/ReturnPredicted": Tag("return", "Mean change of the return that an inner update's surrogate predicts."),
    "Train/ReturnActual": Tag("return", "Mean change of the return that came true in the next batch."),
    "Meta/KL": Tag("nat", "KL divergence of the outer update."),
    "Meta/TrustRegion": Tag("nat", "Size of the outer update's trust region."),
    "Meta/Case": Tag("case", "Case of the outer step, the number of a metacpo.solver.Case."),
    "Meta/Accepted": Tag("1", "1 if the line search accepted the outer step."),
    "Meta/Alpha": Tag("1", "Factor of the outer step that the line search chose."),
    "Meta/CGResidual": Tag("1", "Relative residual of conjugate gradients in the outer step."),
    "Meta/CGIterations": Tag("iterations", "Iterations of conjugate gradients in the outer step."),
    "Meta/Lambda": Tag("objective/nat", "Multiplier λ of the outer step's trust region."),
    "Meta/Nu": Tag("objective/constraint", "Multipliers ν of the outer step, mean over constraints."),
    "Meta/DerivativeClipped": Tag("1", "1 if the outer step's derivative is at an edge where it was bounded."),
    "Meta/NonFinite": Tag("1", "1 if a task's meta-gradient or the outer step was not finite: dropped."),
    "Meta/NextReturnPredicted": Tag("return", "Change of the adapted return that this outer update predicts."),
    "Meta/NextCostPredicted": Tag("cost", "Change of the limited adapted cost that this outer update predicts."),
    "Meta/ReturnPredicted": Tag("return", "Change of the adapted return that the outer update before predicted."),
    "Meta/ReturnActual": Tag("return", "Change of the adapted return since then, on other tasks."),
    "Meta/CostPredicted": Tag("cost", "Change of the limited adapted cost that the outer update before predicted."),
    "Meta/CostActual": Tag("cost", "Change of the limited adapted cost since then, on other tasks."),
    "Meta/AgreementReturn": Tag("1", "Cosine between two halves of the tasks' meta-gradients of the objective."),
    "Meta/AgreementCost": Tag("1", "The same of the constraints' meta-gradients, mean over them."),
    "Meta/SignalReturn": Tag("1", "Share of a pooled gradient's square that is signal; 1 through inner steps."),
    "Meta/SignalCost": Tag("1", "The same of the constraints' gradients, mean over them."),
    "Meta/StepScale": Tag("1", "Meta-learned factor on the size of the inner steps."),
    "Metrics/LagrangeMultiplier": Tag("reward/cost", "Lagrange multiplier (its integral part), mean over constraints."),
    "Misc/CostShare": Tag("1", "Mean share of the cost in what the inner updates lower; ν/(1 + ν) for a multiplier."),
    "Misc/SignalReturn": Tag("1", "Mean share of an inner gradient's square that is signal, by halves of a batch."),
    "Misc/SignalCost": Tag("1", "The same of the constraints' gradients."),
    "Misc/Rejected": Tag("updates", "Inner updates that the line search rejected."),
    "Misc/DerivativeClipped": Tag("updates", "Inner updates whose derivative is at an edge where it was bounded."),
    "Misc/NonFiniteUpdates": Tag("updates", "Inner updates rejected because a number was not finite, or H singular."),
    "Misc/CriticNonFinite": Tag("critics", "Critics, one per signal and batch, that were not finite and counted as 0."),
    "Misc/TasksLeftOut": Tag("tasks", "Tasks without a share in the outer update: no valid step, or a bad number."),
    "Misc/ObservationsLeftOut": Tag("observations", "Observations too large for the normaliser, which did without."),
    "Misc/NormaliserDrift": Tag(
        "1", "Distance of the mean observation to the normaliser's, in its standard deviations."
    ),
    "Misc/CGResidual": Tag("1", "Mean relative residual of conjugate gradients in the inner updates."),
    "Misc/CGIterations": Tag("iterations", "Mean iterations of conjugate gradients in the inner updates."),
    "Misc/Lambda": Tag("objective/nat", "Mean multiplier λ of the inner updates' trust regions."),
    "Misc/Nu": Tag("objective/constraint", "Mean multiplier ν of the inner updates' constraints."),
    "Misc/TrustRegion": Tag("nat", "Mean size of the inner updates' trust regions."),
    "Misc/Alpha": Tag("1", "Mean factor that the line search chose in the inner updates."),
    "Misc/Case/{case}": Tag("updates", "Inner updates that ended in this case of the constrained step."),
    "Adapt/step{k}/EpRet": Tag("return", "Mean undiscounted return of an episode after k inner updates."),
    "Adapt/step{k}/EpCost": Tag("cost", "Mean undiscounted cost of an episode after k inner updates."),
    "Adapt/step{k}/DiscountedCost": Tag("cost", "Mean discounted cost of an episode after k inner updates."),
    "Adapt/step{k}/CostPredicted": Tag("cost", "Change of the limited cost that inner update k predicted."),
    "Adapt/step{k}/CostActual": Tag("cost", "Change of the limited cost that came true in the batch after it."),
    "Adapt/step{k}/ReturnPredicted": Tag("return", "Change of the return that inner update k predicted."),
    "Adapt/step{k}/ReturnActual": Tag("return", "Change of the return that came true in the batch after it."),
}


def describe(tag: str) -> Tag:
    """The entry of TAGS for a column of metrics.csv. Raises KeyError for a tag that nobody has described."""
    general = re.sub(r"^Adapt/step\d+/", "Adapt/step{k}/", tag)
    general = re.sub(r"^Misc/Case/\w+$", "Misc/Case/{case}", general)
    return TAGS[re.sub(r"^(Metrics/(EpCost|DiscountedCost|CostLimit))/.+$", r"\1/{constraint}", general)]


def of_constraint(tag: str, name: str) -> str:
    """The column of one of several constraints, beside the one of their sum."""
    return f"{tag}/{name}"


def constraints_in(tags: Iterable[str]) -> list[str]:
    """The names of the constraints that have columns of their own; none where there is one constraint."""
    return [tag.removeprefix(f"{COST_LIMIT}/") for tag in tags if tag.startswith(f"{COST_LIMIT}/")]


def limit_of(cost: str) -> str:
    """The column of the limit on what a column of LIMITED_COST's, or of one constraint, counts."""
    (general,) = (tag for tag in LIMITED_COST.values() if cost == tag or cost.startswith(f"{tag}/"))
    return COST_LIMIT + cost.removeprefix(general)


def todays_name(tag: str) -> str:
    """A tag's name in this version: runs of earlier ones logged some under another."""
    if tag.startswith("Metrics/"):  # they never had another, and some end in a constraint's name
        return tag
    for old, new in (("Promised", "Predicted"), ("Realised", "Actual"), ("/Edge", "/DerivativeClipped")):
        if tag.endswith(old):
            return tag.removesuffix(old) + new
    return tag
