"""What the updates did: step sizes, whether predictions came true, and in which case each update ended."""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import PercentFormatter

from metacpo.report import style
from metacpo.report.captions import case_words
from metacpo.report.curves import draw_smoothed, label_training, legend_label, set_robust_limits
from metacpo.report.run import Run
from metacpo.report.style import Panel
from metacpo.report.summary import last_tenth, mean_of_finite, robust_limits, slope_through_origin, thin
from metacpo.report.words import number

# name -> (colour, meaning), in the order of their codes
CASES = {
    "INFEASIBLE": (style.UNSAFE, "No step in the trust region meets the limit: it only lowers the cost."),
    "RECOVERING": ("#e69f00", "The limit is broken now, and the step is chosen to meet it again."),
    "BINDING": ("#f0dc82", "The limit is met now, and it holds the step back."),
    "SLACK": ("#8cc2e8", "The best step without the limit meets it anyway."),
    "UNCONSTRAINED": (style.RETURN, "Nothing to satisfy: no limit, or a cost that no step can change."),
    "INVALID": (
        style.MUTED,
        "No step could be trusted (such as numbers that are not finite): none was taken.",
    ),
}
MOST_DOTS = 500
MOST_BINS = 60


def update_panels(runs: Sequence[Run]) -> list[Panel]:
    """Every panel about updates for which the runs hold data."""
    panels = []
    if any(tag in run.metrics for run in runs for tag in ("Train/KL", "Meta/KL")):
        panels.append(_kl_panel(runs))
    for quantity, colour in (("Return", style.RETURN), ("Cost", style.COST)):
        pairs = [predictions(run, quantity) for run in runs]
        if any(predicted.size for predicted, _ in pairs):
            panels.append(_prediction_panel(pairs, quantity, colour))
    panels += [_case_panel(run, alone=len(runs) == 1) for run in runs if binned_cases(run)[1].size]
    if any("Train/PolicyStd" in run.metrics for run in runs):
        panels.append(_spread_panel(runs))
    return panels


def predictions(run: Run, quantity: str) -> tuple[np.ndarray, np.ndarray]:
    """Predicted and actual change of "Return" or "Cost" per iteration; empty where not logged."""
    empty = np.zeros(0)
    predicted = run.metrics.get(f"Train/{quantity}Predicted", empty)
    actual = run.metrics.get(f"Train/{quantity}Actual", empty)
    if predicted.size != actual.size:
        return empty, empty
    both = np.isfinite(predicted) & np.isfinite(actual)
    return predicted[both], actual[both]


def case_counts(run: Run) -> dict[str, int]:
    """How many inner updates ended in each case over the whole run."""
    return {case: int(np.nansum(run.metrics.get(f"Misc/Case/{case}", np.zeros(1)))) for case in CASES}


def _kl_panel(runs: Sequence[Run]) -> Panel:
    figure, axes = style.new_panel()
    values = []
    for index, run in enumerate(runs):
        for tag, label, alone in (
            ("Train/KL", "inner updates", style.WITHIN),
            ("Meta/KL", "meta-update", style.INK),
        ):
            if tag in run.metrics:
                colour = style.run_colour(index, len(runs), alone)
                label = legend_label(label, len(runs) == 1)
                draw_smoothed(axes, run.metrics["env_steps"], run.metrics[tag], colour, label)
                if tag == "Meta/KL" and len(runs) > 1:
                    axes.lines[-1].set_linestyle(":")  # the colour tells the run, the dots tell the update
                values.append(run.metrics[tag])
    set_robust_limits(axes, values)
    label_training(axes, "Mean KL of an update (nats)")
    return Panel(
        figure,
        "Step size",
        "How far an update moves the policy. It should stay near the trust region's size; a line at zero "
        "means that updates are rejected."
        + (" Solid: inner updates; dotted: the meta-update." if len(runs) > 1 else ""),
    )


def _prediction_panel(pairs: Sequence[tuple[np.ndarray, np.ndarray]], quantity: str, alone: str) -> Panel:
    figure, axes = style.new_panel()
    predicted, actual = (np.concatenate(column) for column in zip(*pairs, strict=True))
    both = np.concatenate([predicted, actual])
    low, high = robust_limits(both, np.zeros(1))
    for index, (x, y) in enumerate(pairs):
        keep = thin(len(x), MOST_DOTS)
        colour = style.run_colour(index, len(pairs), alone)
        axes.plot(x[keep], y[keep], linestyle="none", marker="o", markersize=3, color=colour, alpha=0.45, mew=0)
    axes.plot([low, high], [low, high], color=style.INK, linewidth=1, label="kept exactly")
    slope = slope_through_origin(predicted, actual)
    if np.isfinite(slope):
        ends = np.array([low, high])
        axes.plot(ends, slope * ends, color=style.MUTED, linestyle=":", linewidth=2, label=f"ratio {slope:.2f}")
    axes.set(xlim=(low, high), ylim=(low, high))
    words = quantity.lower()
    style.label_axes(axes, f"Predicted change of {words} (per episode)", "Actual change (per episode)")
    style.add_legend(axes)
    beyond = int(np.sum((np.minimum(predicted, actual) < low) | (np.maximum(predicted, actual) > high)))
    if beyond:
        style.note(axes, f"{beyond} of {predicted.size} points beyond the axes")
    return Panel(
        figure,
        f"Predicted and actual change of {words}",
        "One dot per iteration, inner updates only: what the linear model predicted, and what fresh episodes "
        f"showed. The ratio is the slope of the least-squares line through 0: {_ratio(slope)}. Near 1 the "
        "predictions come true; near 0 they are noise.",
    )


def _ratio(slope: float) -> str:
    return f"{slope:.2f}" if np.isfinite(slope) else "undefined here, nothing was predicted"


def _case_panel(run: Run, alone: bool) -> Panel:
    """Shares of the cases over the iterations that made inner updates: a warm-up makes none, and is left out."""
    counts, env_steps = binned_cases(run)
    total = np.sum(list(counts.values()), axis=0)
    figure, axes = style.new_panel()
    seen = [case for case, row in counts.items() if row.any()]
    axes.stackplot(
        env_steps,
        [counts[case] / total for case in seen],
        colors=[CASES[case][0] for case in seen],
        labels=[case.lower() for case in seen],
        linewidth=0,
    )
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    label_training(axes, "Share of inner updates (%)")
    title = "Cases of the constrained step" + ("" if alone else f", {run.name}")
    return Panel(figure, title, f"{case_words(counts, env_steps)} The table below says what each case means.")


def binned_cases(run: Run) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """How many inner updates ended in each case, in bins of iterations, and the bins' first environment steps.

    Single iterations are too jagged to read. Those without an inner update are in no bin.
    """
    nothing = np.zeros(len(run.metrics["env_steps"]))
    counts = np.nan_to_num(np.array([run.metrics.get(f"Misc/Case/{case}", nothing) for case in CASES]))
    updated = counts.sum(axis=0) > 0
    counts, env_steps = counts[:, updated], run.metrics["env_steps"][updated]
    count = len(env_steps)
    starts = np.unique(np.linspace(0, count, min(MOST_BINS, count), endpoint=False).astype(int))
    binned = np.add.reduceat(counts, starts, axis=1)
    return dict(zip(CASES, binned, strict=True)), env_steps[starts]


def _spread_panel(runs: Sequence[Run]) -> Panel:
    figure, axes = style.new_panel()
    values = []
    for index, run in enumerate(runs):
        if "Train/PolicyStd" in run.metrics:
            colour = style.run_colour(index, len(runs), style.WITHIN)
            label = legend_label("mean over actions", len(runs) == 1)
            draw_smoothed(axes, run.metrics["env_steps"], run.metrics["Train/PolicyStd"], colour, label)
            values.append(run.metrics["Train/PolicyStd"])
    set_robust_limits(axes, values)
    label_training(axes, "Standard deviation (action units)")
    ends = ""
    if len(runs) == 1:
        first, last = (number(mean_of_finite(part)) for part in (values[0][:1], last_tenth(values[0])))
        ends = f" It begins at {first} and ends at {last}."
    return Panel(
        figure,
        "Exploration",
        f"The spread of the actions.{ends} A collapse toward zero ends exploration before the task is learnt.",
    )
