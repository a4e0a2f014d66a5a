"""From a checkpoint to the files that the report reads: every number means what its column says."""

import csv
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from untrained import CONFIG, SPLITS

from metacpo.adaptation import from_run
from metacpo.adaptation.evaluate import drawn_tasks, evaluate
from metacpo.adaptation.files import write
from metacpo.adaptation.from_run import adapt, load_policy
from metacpo.adaptation.outcomes import COLUMNS, judged
from metacpo.cli import main as cli
from metacpo.config.schema import Config, ConfigError
from metacpo.envs.tasks import Task, with_cost_limit
from metacpo.estimation.batch import EpisodeStats, EstimationSettings, episode_stats
from metacpo.report import write_report
from metacpo.report.read import read_run
from metacpo.rollout import rollout
from metacpo.training import checkpoint
from metacpo.training.setup import build
from metacpo.training.state import init_state


def test_one_row_for_every_split_task_and_step(result):
    keys = [(row.split, row.task, row.step) for row in result.rows]
    assert keys == [(split, task, step) for split in SPLITS for task in range(4) for step in (0, 1)]


def test_satisfied_says_whether_the_limited_cost_is_within_the_limit(result):
    assert {row.cost_limit for row in result.rows} == {20.0}
    for row in result.rows:
        assert row.satisfied == (row.episode_cost <= 20.0)
    by_discounted = dataclasses.replace(result, cost_measure="discounted")
    for row in by_discounted.rows:
        assert row.satisfied == (row.discounted_cost <= 20.0)
    assert all(row.discounted_cost <= row.episode_cost for row in result.rows)


def test_a_task_in_which_every_world_broke_is_not_safe(result):
    """No valid step: a cost of 0 that nobody paid."""
    stats = result.splits[0].adaptation.stats
    broken = dataclasses.replace(
        stats, length=stats.length.at[1, 2].set(0.0), episode_cost=stats.episode_cost.at[1, 2].set(0.0)
    )
    adaptation = dataclasses.replace(result.splits[0].adaptation, stats=broken)
    split = dataclasses.replace(result.splits[0], adaptation=adaptation)
    rows = dataclasses.replace(result, splits=(split,)).rows
    assert [row.satisfied for row in rows if (row.task, row.step) == (2, 1)] == [False]


def test_splits_are_those_of_the_task_distribution(result):
    radius = {each.split: np.asarray(each.tasks.params["radius"]) for each in result.splits}
    assert np.all((radius["held-out"] >= 1.0) & (radius["held-out"] <= 1.5))
    assert np.all((radius["shifted"] >= 2.0) & (radius["shifted"] <= 2.5))


@pytest.mark.slow
def test_the_seed_decides_everything_and_the_limit_only_the_limit(run, result):
    said = []
    again = evaluate(run.setup, run.state, CONFIG.adaptation, SPLITS, seed=0, say=said.append)
    assert said == ["adapting to 4 held-out tasks …", "adapting to 4 shifted tasks …"]  # compiled before
    assert again.rows == result.rows
    other = evaluate(run.setup, run.state, CONFIG.adaptation, ("held-out",), seed=1, cost_limit=0.0)
    assert all(row.cost_limit == 0.0 and row.satisfied == (row.episode_cost == 0) for row in other.rows)
    assert not np.allclose(other.splits[0].tasks.params["radius"], result.splits[0].tasks.params["radius"])


def test_the_last_step_is_judged_on_episodes_that_no_update_saw(run, result):
    """φ^K on other episodes of its task earns nearly the same, and the policies of the tasks differ."""
    held_out = result.splits[0]
    assert held_out.adaptation.stats.episode_return.shape == (2, 4)
    assert held_out.adaptation.updates.alpha.shape == (1, 4)
    phi = np.asarray(held_out.adaptation.phi)
    assert len(np.unique(phi, axis=0)) == 4 and not np.any(np.all(phi == np.asarray(run.state.theta), axis=1))
    task = jax.tree.map(lambda x: x[0], held_out.tasks)
    data = jax.jit(
        lambda p, k: rollout(run.setup.env, run.setup.policy, p, run.state.normaliser, task, k, 8)
    )(held_out.adaptation.phi[0], jax.random.key(7))  # fmt: skip
    fresh = float(episode_stats(data, task.cost_limit, EstimationSettings()).episode_return)
    spread = float(np.std(np.sum(np.asarray(data.reward), axis=0)))
    assert abs(fresh - float(held_out.adaptation.stats.episode_return[1, 0])) < 4 * spread


def test_files_are_read_back_by_the_report(run, result):
    write(run.path, result)
    with (run.path / "adaptation.csv").open(newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    write_report([run.path])
    read = read_run(run.path)
    assert read.adaptation.splits == SPLITS
    for index, split in enumerate(SPLITS):
        grid = read.adaptation.grid(split, "return")
        rows = [row for row in result.rows if row.split == split]
        np.testing.assert_allclose(grid.ravel(), [row.episode_return for row in rows], rtol=1e-5)
        for column, name in zip(COLUMNS[8:], list(vars(rows[0]))[8:-1], strict=True):
            assert name.removeprefix("deterministic_") in column
            written = read.adaptation.grid(split, column).ravel()
            np.testing.assert_allclose(written, [float(getattr(row, name)) for row in rows], rtol=1e-5)
        params = result.splits[index].tasks.params
        for task in result.splits[index].drawn:
            ring, left, right = read.scene(split, task, 1)
            assert ring.radius == pytest.approx(float(params["radius"][task]), rel=1e-5)
            assert (left.x, right.x) == pytest.approx(
                (-float(params["wall"][task]), float(params["wall"][task])), rel=1e-5
            )
    traces = read.traces or ()
    assert {(t.split, t.task) for t in traces} == {(e.split, task) for e in result.splits for task in e.drawn}
    assert {t.stage for t in traces} == {"before", "after"}
    assert all(len(t.position) == 500 for t in traces)
    for trace in traces:  # a step has cost where it ends behind a wall; the file has 4 decimals
        distance = np.abs(trace.position[:, 0]) - read.scene(trace.split, trace.task, 0)[2].x
        clear = np.abs(distance) > 1e-4
        np.testing.assert_array_equal(trace.unsafe[clear], distance[clear] > 0)
    assert (run.path / "report.html").stat().st_size > 10_000
    assert not list(run.path.glob("*.part*"))


def test_paths_start_at_the_same_places_before_and_after(result):
    starts = result.splits[0].paths.position[:, :, 0]  # after one step of 0.02 s
    np.testing.assert_allclose(starts[:, 0], starts[:, 1], atol=1e-3)


def test_without_positions_there_are_no_paths_and_the_files_say_so(result, tmp_path):
    split = dataclasses.replace(result.splits[0], paths=None)
    write(tmp_path, dataclasses.replace(result, splits=(split,)))
    assert (tmp_path / "paths.csv").read_text().splitlines() == ["split,task,stage,episode,t,x,y,unsafe"]
    layout = json.loads((tmp_path / "layout.json").read_text())["held-out"]
    assert [sorted(entry) for entry in layout] == [["parameters", "task"]] * 4
    assert layout[2]["parameters"]["radius"] == pytest.approx(float(split.tasks.params["radius"][2]), rel=1e-5)


def test_the_unsafest_the_middle_and_the_safest_task_are_drawn(result):
    adaptation = result.splits[0].adaptation
    cost = np.array([[5.0], [40.0], [0.0], [7.0]])
    stats = dataclasses.replace(adaptation.stats, episode_cost=jnp.asarray(np.stack([cost, cost[::-1]]), jnp.float32))
    assert drawn_tasks(dataclasses.replace(adaptation, stats=stats)) == (1, 0, 2)


def test_mean_actions_are_rolled_out_for_every_policy_on_the_way(run, result):
    """The first step is θ on all tasks, and the last φ^K: what bare rollouts of their means give, with other starts."""
    split = result.splits[0]
    policies = np.stack([np.broadcast_to(run.state.theta, split.adaptation.phi.shape), split.adaptation.phi])

    @jax.jit
    def judge(phi, task, key):
        data = rollout(run.setup.env, run.setup.policy, phi, run.state.normaliser, task, key, 8, deterministic=True)
        return jnp.sum(data.reward, axis=0), data.action, run.setup.policy(phi, run.state.normaliser(data.obs)).mean

    for step, task in np.ndindex(2, 4):
        earned, action, mean = judge(
            jnp.asarray(policies[step, task]), jax.tree.map(lambda x, i=task: x[i], split.tasks), jax.random.key(5)
        )
        np.testing.assert_allclose(action, mean, atol=1e-5)
        row = next(row for row in result.rows if (row.split, row.task, row.step) == ("held-out", task, step))
        assert abs(row.deterministic_return - float(earned.mean())) < 4 * float(earned.std()) + 1e-3
    assert not np.allclose(split.adaptation.deterministic.episode_return, split.adaptation.stats.episode_return)


def test_no_constraint_hides_another_s_violation():
    """Two constraints: what one leaves unspent does not pay for the other."""
    zero, one = np.zeros((1, 2)), np.ones((1, 2))
    cost = np.array([[[1.0, 6.0], [4.0, 5.0]]])  # [step, task, constraint]; limits 10 and 5
    stats = EpisodeStats(*(jnp.asarray(x) for x in (zero, cost, cost, one, one, one, zero, zero, cost, cost)))
    limits = np.array([[10.0, 5.0], [10.0, 5.0]])
    outcome = judged(stats, jnp.asarray(limits), "episode")
    np.testing.assert_allclose(outcome.excess, [[1.0, 0.0]])
    assert outcome.satisfied.tolist() == [[False, True]]
    np.testing.assert_allclose(outcome.limited_cost, [[7.0, 9.0]])
    np.testing.assert_allclose(outcome.excesses[:, 0], [[-9.0, 1.0]])
    nothing = dataclasses.replace(stats, length=jnp.asarray(zero))
    assert np.isinf(judged(nothing, jnp.asarray(limits), "episode").excess).all()


@pytest.mark.slow
def test_adapting_to_one_task_gives_its_policy_and_its_curve(run, monkeypatch):
    seen, said = {}, []
    monkeypatch.setattr(from_run, "open_run", lambda folder: run)
    real = from_run.evaluate

    def spy(setup, state, settings, splits, seed, task=None, cost_limit=None):
        seen["result"] = real(setup, state, settings, splits, seed, task, cost_limit, said.append)
        return seen["result"]

    monkeypatch.setattr(from_run, "evaluate", spy)
    adapted = adapt(run.path, task={"radius": 1.3}, cost_limit=(12.5,), seed=3)  # steps: the run's own, 1
    assert [(row.step, row.cost_limit) for row in adapted.curve] == [(0, 12.5), (1, 12.5)]
    assert {row.split for row in adapted.curve} == {"given task"}
    assert (said[0], said[-1]) == ("compiling adapt_tasks …", "adapting to the given task …")
    assert re.fullmatch(r"compiled in \d+\.\d s", said[1])
    assert float(seen["result"].splits[0].tasks.params["radius"][0]) == pytest.approx(1.3)
    obs = np.linspace(-1, 1, 28, dtype=np.float32)
    before, after = load_policy(run.path), adapted.policy
    assert before(obs, deterministic=True).shape == after(obs, deterministic=True).shape == (2,)
    assert not np.array_equal(before(obs, deterministic=True), after(obs, deterministic=True))
    with pytest.raises(ValueError, match="key"):
        after(obs)


@pytest.mark.slow
def test_another_engine_leaves_the_run_s_own_files_alone(tmp_path, capsys):
    """evaluate --physics, on a family without bodies: both engines are the same."""
    config = Config.preset("bandit", adaptation={"tasks": 2, "steps": 1, "episodes": 4}, iterations=1)
    config.save(tmp_path / "config.toml")
    checkpoint.save(tmp_path, init_state(build(config), config.seed))
    assert cli.main(["evaluate", str(tmp_path), "--physics", "mjx"]) == 0
    out = capsys.readouterr().out
    assert "held-out, mjx against mujoco: return " in out and out.count("(+0)") == 4
    assert not (tmp_path / "adaptation.csv").exists()
    with (tmp_path / "adaptation-mjx.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["0", "1"] * 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": -1}, r"adaptation\.steps: -1 is not in \[0, inf\)"),
        ({"cost_limit": -2.0}, r"cost_limit: -2\.0 is not in \[0, inf\)"),
        ({"cost_limit": (1.0, 2.0)}, r"cost_limit: \[1\.0, 2\.0\] has 2 numbers; wanted: one for all, or 1 "),
        ({"task": {"radius": 1.3}, "split": "shifted"}, r"split: 'shifted' beside one given task"),
        ({"seed": -1}, r"seed: -1 is not in"),
    ],
)
def test_the_python_interface_checks_what_the_command_line_does(run, given, message):
    with pytest.raises(ConfigError, match=message):
        adapt(run.path, **given)


def test_every_constraint_has_its_own_limit():
    tasks = Task(jnp.ones((3, 2)), {})
    np.testing.assert_array_equal(with_cost_limit(tasks, (0.5, 7.0)).cost_limit, [[0.5, 7.0]] * 3)
    np.testing.assert_array_equal(with_cost_limit(tasks, 4.0).cost_limit, np.full((3, 2), 4.0))
