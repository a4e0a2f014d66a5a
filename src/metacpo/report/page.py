"""The page, section by section: one HTML file that needs nothing beside it and no network."""

import os
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from metacpo.report import curves, paths, tables, updates
from metacpo.report.captions import lead
from metacpo.report.floor import floor_key
from metacpo.report.read import ReportError, read_run
from metacpo.report.run import Run
from metacpo.report.style import Panel, own_settings, run_colour, to_svg
from metacpo.run_folder import replacing, writing

CSS = Path(__file__).with_name("page.css")
REPORT_NAME = "report.html"


def write_report(run_dirs: Sequence[Path], out: Path | None = None) -> Path:
    """Write one self-contained HTML report of one run or of several (its seeds); returns its path.

    `out` defaults to `report.html` in the run folder, or in the common parent of several. Raises
    `ReportError` where a run folder is incomplete or damaged.
    """
    if not run_dirs:
        raise ReportError("no run folder was given")
    runs = [read_run(Path(run_dir)) for run_dir in run_dirs]
    if out is None:
        parent = os.path.commonpath([run.path.resolve().parent for run in runs])
        out = (runs[0].path if len(runs) == 1 else Path(parent)) / REPORT_NAME
    with own_settings(), np.errstate(over="ignore", invalid="ignore"):  # shown as not finite
        page = render(runs)
    with writing(out.parent), replacing(out) as part:
        part.write_text(page, encoding="utf-8")
    return out


def render(runs: Sequence[Run]) -> str:
    """The whole page as text."""
    title = " · ".join([_environment(runs[0]), str(runs[0].setting("algorithm", "unknown algorithm"))])
    sections = "\n".join(
        [
            f"<header><p class='kicker'>metacpo report</p><h1>{escape(title)}</h1>{_facts(runs)}</header>",
            _headline(runs),
            *_health(runs),
            _learning(runs),
            _adaptation(runs),
            _paths(runs[0], len(runs) > 1),
            _updates(runs),
            _settings(runs),
        ]
    )
    return (
        "<!DOCTYPE html>\n"
        '<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>\n{CSS.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><main>\n{sections}\n</main></body></html>\n"
    )


def _section(name: str, heading: str, *parts: str) -> str:
    content = "\n".join(part for part in parts if part)
    return f'<section id="{name}"><h2>{heading}</h2>\n{content}\n</section>'


def _missing(text: str) -> str:
    return f'<p class="missing">{text}</p>'


def _figures(panels: Sequence[Panel], name: str) -> str:
    """Panels side by side where the window is wide enough, else below each other."""
    figures = [
        f"<figure><h3>{escape(panel.title)}</h3>{to_svg(panel, f'{name}{index}')}"
        f"<figcaption>{escape(panel.caption)}</figcaption></figure>"
        for index, panel in enumerate(panels)
    ]
    return f'<div class="figures">{"".join(figures)}</div>' if figures else ""


def _environment(run: Run) -> str:
    name = run.setting("env.name", run.setting("env"))
    return name if isinstance(name, str) else run.name


def _facts(runs: Sequence[Run]) -> str:
    """A line of facts about the training; a fact that no run states is left out."""
    first = runs[0]
    seeds = ", ".join(str(seed) for run in runs if (seed := run.setting("seed")) is not None)
    facts = {
        "Run" if len(runs) == 1 else "Runs": ", ".join(run.name for run in runs),
        "Preset": first.setting("preset"),
        "Seed" if len(runs) == 1 else "Seeds": seeds or None,
        "Updates per task": first.setting("meta.steps", first.last_step),
        "Meta-iterations": _each(str(len(run.metrics["iteration"])) for run in runs),
        "Training": _each(_training_time(run) for run in runs),
        "Limited cost": first.limited_cost.replace("_", " "),
    }
    items = [
        f"<div><dt>{name}</dt><dd>{escape(str(value))}</dd></div>" for name, value in facts.items() if value is not None
    ]
    return f"<dl>{''.join(items)}</dl>"


def _each(values: Iterable[str]) -> str:
    """The distinct values of several runs."""
    return ", ".join(dict.fromkeys(values))


def _colour_key(runs: Sequence[Run]) -> str:
    """Which colour is which run; empty for a single run, whose colours mean quantities."""
    if len(runs) == 1:
        return ""
    entries = [
        f'<span><i style="background:{run_colour(index, len(runs), "")}"></i>{escape(run.name)}</span>'
        for index, run in enumerate(runs)
    ]
    return f'<p class="key">{"".join(entries)}</p>'


def _training_time(run: Run) -> str:
    steps, seconds = float(run.metrics["env_steps"][-1]), float(run.metrics["seconds"][-1])
    time = f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
    return f"{steps / 1e6:.2f} M steps in {time}"


def _headline(runs: Sequence[Run]) -> str:
    splits = tables.split_names(runs) if len(runs) == 1 else []
    constraints = tables.constraint_table(runs)
    return _section(
        "headline",
        "Before and after adaptation",
        *(lead(runs[0], split) for split in splits),
        f'<div class="wide">{tables.verdict_table(runs)}</div>',
        f'<h3>Each constraint</h3><div class="wide">{constraints}</div>' if constraints else "",
        f'<p class="note">{tables.budget_words(runs)}</p>',
        '<p class="note">Means over tasks, each from fresh evaluation episodes. Intervals say what other tasks would '
        "give: by the bootstrap for means, Wilson’s for shares of tasks; they are wide where tasks are few. The worst "
        "task is the one whose cost is farthest above its limit.</p>",
    )


def _health(runs: Sequence[Run]) -> list[str]:
    """The warnings, where there are any."""
    table = tables.warnings_table(runs)
    intro = (
        '<p class="note">Rules over the training’s own numbers, each told at the last meta-iteration it looks at. '
        "What was not finite was left out and counted; the parameters stayed finite.</p>"
    )
    return [_section("health", "Health", intro, f'<div class="wide">{table}</div>')] if table else []


def _learning(runs: Sequence[Run]) -> str:
    panels = curves.learning_panels(runs)
    if not panels:
        return _section("learning", "Learning", _missing("No learning curves: metrics.csv holds no returns or costs."))
    return _section("learning", "Learning", _colour_key(runs), _figures(panels, "learning"))


def _adaptation(runs: Sequence[Run]) -> str:
    parts = []
    for index, split in enumerate(tables.split_names(runs)):
        parts.append(_figures(curves.adaptation_panels(runs, split), f"adaptation{index}-"))
    intro = '<p class="note">The grey dot is the policy as meta-trained, before it has seen the task.</p>'
    return _section("adaptation", "Adaptation to new tasks", intro, _colour_key(runs), *parts)


def _paths(run: Run, several: bool) -> str:
    if run.traces is None:
        return _section("paths", "Paths", _missing("No paths: this run kept no paths.csv."))
    if not run.traces:
        why = "the environment has no <code>position</code>, or no world of them made a single valid step"
        return _section("paths", "Paths", _missing(f"No paths: paths.csv has no rows; {why}."))
    splits = dict.fromkeys(trace.split for trace in run.traces)
    known = any(trace.unsafe is not None for trace in run.traces)
    lone = "; a dot alone is an episode of one step" if any(len(trace.position) == 1 for trace in run.traces) else ""
    whose = f" From the first run, {escape(run.name)}." if several else ""
    return _section(
        "paths",
        "Paths",
        f'<p class="note">Seen from above. {floor_key(run.scenes)}'
        f"{'The path is red where a step is unsafe. ' if known else ''}The dots are starts{lone}.{whose}</p>",
        *(_figures(paths.path_panels(run, split), f"paths{index}-") for index, split in enumerate(splits)),
    )


def _updates(runs: Sequence[Run]) -> str:
    panels = updates.update_panels(runs)
    cases = any(sum(updates.case_counts(run).values()) for run in runs)
    health = tables.health_table(runs)
    if not (panels or cases or health):
        return _section("updates", "Updates", _missing("No facts about updates: metrics.csv holds none."))
    return _section(
        "updates",
        "Updates",
        _colour_key(runs),
        _figures(panels, "updates"),
        f'<h3>How the inner updates ended</h3><div class="wide">{tables.case_table(runs)}</div>'
        if cases
        else _missing("No cases of the constrained step: this algorithm logged none."),
        f'<h3>How well they were computed</h3><div class="wide">{health}</div>' if health else "",
    )


def _settings(runs: Sequence[Run]) -> str:
    blocks = [
        f"<details><summary>{escape(run.name)}/config.toml</summary><pre>{escape(run.config_text)}</pre></details>"
        for run in runs
    ]
    return _section("settings", "Settings", *blocks)
