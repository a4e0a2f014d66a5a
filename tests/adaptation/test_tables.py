"""What an evaluation prints: every figure is the mean of the rows that it stands for."""

import csv
import dataclasses
import io
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console
from untrained import CONFIG, SPLITS

from metacpo.adaptation.adapt import adapt_tasks
from metacpo.adaptation.files import write_rows
from metacpo.adaptation.outcomes import COLUMNS, Evaluation, SplitResult
from metacpo.adaptation.tables import budget_line, difference, table, while_adapting
from metacpo.statistics import mean_interval
from metacpo.training.setup import build
from metacpo.training.state import init_state


@pytest.fixture(scope="module")
def result():
    """An evaluation of made-up numbers, in the shapes of a real one, which would take long to compile."""
    setup = build(CONFIG)
    state, settings, key = init_state(setup, 0), CONFIG.adaptation, jax.random.key(0)
    random = np.random.default_rng(0)
    splits = []
    for split in SPLITS:
        tasks = setup.tasks.sample_batch(key, settings.tasks, split)
        shapes = jax.eval_shape(partial(adapt_tasks, setup, settings=settings), state, tasks, key)
        made_up = jax.tree.map(lambda x: jnp.asarray(random.uniform(0, 40, x.shape), x.dtype), shapes)
        long = jnp.full_like(made_up.stats.length, setup.env.episode_length)
        adaptation = eqx.tree_at(lambda a: (a.stats.length, a.deterministic.length), made_up, (long, long))
        splits.append(SplitResult(split, tasks, adaptation, (), None))
    return Evaluation(tuple(splits), setup.estimation.cost_measure, setup.env.cost_names, settings.episodes)


def test_the_table_counts_the_tasks_within_the_limit(result):
    out = io.StringIO()
    Console(file=out, width=120).print(table(result))
    text = out.getvalue()
    within = sum(row.satisfied for row in result.rows if (row.split, row.step) == ("held-out", 1))
    mean = np.mean([row.episode_return for row in result.rows if (row.split, row.step) == ("held-out", 1)])
    line = next(line for line in text.splitlines() if "held-out" in line and " 1 " in line)
    assert f"{within}/4" in line and f"{mean:.1f}" in line and "episode cost" in text
    assert "…" not in text and max(len(line) for line in text.splitlines()) <= 120
    low, high = mean_interval([row.episode_cost for row in result.rows if (row.split, row.step) == ("held-out", 1)])
    worst = max(row.excess for row in result.rows if (row.split, row.step) == ("held-out", 1))
    assert f"[{low:.1f}, {high:.1f}]" in line and line.split()[-1] == f"{worst:+.1f}"


def test_the_table_names_both_kinds_of_actions(result):
    out = io.StringIO()
    Console(file=out, width=120).print(table(result))
    drawn, mean = out.getvalue().split("deterministic actions")
    assert "stochastic actions" in drawn and "at most 53 % of all are worse" in mean  # 1 − 0.05^(1/4)
    rows = [row for row in result.rows if (row.split, row.step) == ("shifted", 1)]
    line = next(line for line in mean.splitlines() if "shifted" in line and " 1 " in line)
    assert f"{np.mean([row.deterministic_return for row in rows]):.1f} [" in line
    assert f"{sum(row.deterministic_satisfied for row in rows)}/4" in line
    assert line.split()[-1] == f"{max(row.deterministic_excess for row in rows):+.1f}"


def two_constraints(result):
    """The first split with a second constraint, "heat", that costs a hundredth of the first under a limit of 0.001."""

    def with_heat(stats):
        doubled = {
            name: jnp.concatenate([cost, cost / 100], axis=-1)
            for name in ("episode_cost", "discounted_cost")
            for cost in (getattr(stats, name),)
        }
        return dataclasses.replace(stats, **doubled)

    one = result.splits[0]
    adaptation = dataclasses.replace(
        one.adaptation,
        stats=with_heat(one.adaptation.stats),
        deterministic=with_heat(one.adaptation.deterministic),
    )
    tasks = dataclasses.replace(one.tasks, cost_limit=jnp.asarray([[1000.0, 0.001]] * 4, jnp.float32))
    split = dataclasses.replace(one, adaptation=adaptation, tasks=tasks)
    return dataclasses.replace(result, splits=(split,), cost_names=("walls", "heat"))


def test_each_of_several_constraints_has_columns_of_its_own(result, tmp_path):
    several = two_constraints(result)
    write_rows(tmp_path / "rows.csv", several)
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert tuple(lines[0])[: len(COLUMNS)] == COLUMNS
    assert tuple(lines[0])[len(COLUMNS) :] == (
        *("cost/walls", "cost_limit/walls", "deterministic_cost/walls"),
        *("cost/heat", "cost_limit/heat", "deterministic_cost/heat"),
    )
    for line, row in zip(lines, [row for row in result.rows if row.split == "held-out"], strict=True):
        assert (line["cost_limit/walls"], line["cost_limit/heat"]) == ("1000", "0.001")
        assert float(line["cost/walls"]) == pytest.approx(row.episode_cost, rel=1e-5)
        assert float(line["cost/heat"]) == pytest.approx(row.episode_cost / 100, rel=1e-5)
        assert float(line["deterministic_cost/heat"]) == pytest.approx(row.deterministic_cost / 100, rel=1e-5)
        assert line["satisfied"] == str(int(row.episode_cost / 100 <= 0.001))
    write_rows(tmp_path / "one.csv", result)
    assert (tmp_path / "one.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_tables_show_each_of_several_constraints_and_no_sum(result):
    several, out = two_constraints(result), io.StringIO()
    Console(file=out, width=120).print(table(several))
    text = out.getvalue()
    assert "episode cost " not in text.split("each constraint")[0] and "…" not in text
    line = next(line for line in text.split("each constraint")[1].splitlines() if " heat " in line and " 1 " in line)
    costs = [row.episode_cost / 100 for row in result.rows if (row.split, row.step) == ("held-out", 1)]
    within = sum(cost <= 0.001 for cost in costs)
    assert f"{np.mean(costs):.3f} [" in line and f"{within}/4" in line and " 0.001 " in line
    (said,) = while_adapting(several)
    worst = max(row.episode_cost for row in result.rows if (row.split, row.step) == ("held-out", 0)) / 100 - 0.001
    assert "policies within every limit" in said and said.endswith(f"worst {worst:.3g} (heat)")
    (told,) = difference(several, several, ("mujoco", "mjx"))
    assert "walls " in told and "heat " in told and "episode cost" not in told


def test_the_table_says_how_many_steps_were_used(result):
    """Updates see the steps of φ⁰ … φ^{K−1}: here 3 episodes of 500 steps, or less where episodes end early."""
    assert budget_line(result, 9_120_000) == (
        "trained with 9,120,000 steps; the update of a task sees 3 episodes, 1,500 steps"
    )
    one = result.splits[0]
    length = jnp.asarray([[100.0, 200.0, 300.0, 400.0], [500.0] * 4], jnp.float32)
    adaptation = dataclasses.replace(one.adaptation, stats=dataclasses.replace(one.adaptation.stats, length=length))
    short = dataclasses.replace(result, splits=(dataclasses.replace(one, adaptation=adaptation),))
    assert budget_line(short, None) == "the update of a task sees 3 episodes, 750 steps"
    out = io.StringIO()
    Console(file=out, width=120).print(table(short, 0))
    assert "trained with 0 steps; the update of a task sees 3 episodes, 750 steps" in out.getvalue()


def test_the_policies_on_the_way_are_judged_too(result):
    """All but the last of each task, against their limit."""
    lines = while_adapting(result)
    assert [line.split(",")[0] for line in lines] == list(SPLITS)
    for split, line in zip(SPLITS, lines, strict=True):
        costs = [row.episode_cost for row in result.rows if row.split == split and row.step == 0]
        excess = np.maximum(np.array(costs) - 20.0, 0)
        assert f"updates 0 to 0: {sum(excess == 0)} of 4 policies within the limit" in line
        assert f"mean excess {excess.mean():.3g}, worst {excess.max():.3g}" in line


def test_the_difference_between_two_engines_is_told(result):
    stats = result.splits[0].adaptation.stats
    earned = dataclasses.replace(stats, episode_return=stats.episode_return + 1.0)
    adaptation = dataclasses.replace(result.splits[0].adaptation, stats=earned)
    other = dataclasses.replace(
        result, splits=(dataclasses.replace(result.splits[0], adaptation=adaptation), result.splits[1])
    )
    first, second = difference(result, other, ("mujoco", "mjx"))
    assert first.startswith("held-out, mjx against mujoco: return ") and "(+1)" in first
    assert second.startswith("shifted, ") and second.count("(+0)") == 2
