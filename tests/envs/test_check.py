"""check-env on environments that are broken on purpose, one fault each, and on ours, which are not."""

import dataclasses
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import ContractError, OwnRobot, State, make
from metacpo.envs.check import check, require
from metacpo.envs.tasks import Parameter, Task, TaskDistribution

from .tiny_gym import Tiny, tiny

CRANE = Path(__file__).parents[2] / "examples" / "own_robot" / "crane.py"
DRIFT = Parameter(default=0.1, low=0.0, high=1.0, unit="m")


def draw(low, high, name="drift"):
    return lambda key: {name: jax.random.uniform(key, (), minval=low, maxval=high)}


class Good:
    """A point on a line that drifts; cost where it is positive; six steps."""

    observation_size = 2
    action_size = 1
    episode_length = 6
    cost_names = ("right",)
    tasks = TaskDistribution({"drift": DRIFT}, {"train": draw(0.0, 0.5), "shifted": draw(0.5, 1.0)}, (1.0,))

    def reset(self, task: Task, key) -> State:
        return self.state(jax.random.normal(key), jnp.float32(0), jnp.int32(0))

    def step(self, task: Task, state: State, action) -> State:
        place = state.world + 0.1 * action[0] + task.params["drift"]
        return self.state(place, place - state.world, state.steps + 1)

    def position(self, state: State):
        return jnp.stack([state.world, 0 * state.world], axis=-1)

    def state(self, place, reward, steps) -> State:
        return State(
            world=place,
            obs=jnp.stack([place, steps.astype(jnp.float32)]),
            reward=reward,
            cost=jnp.where(steps > 0, (place > 0).astype(jnp.float32), 0.0)[None],
            terminated=jnp.bool_(False),
            truncated=steps >= self.episode_length,
            steps=steps,
        )


def broken(step=None, reset=None, **members):
    """Good with some members replaced; step and reset map a good state to a broken one."""

    class Broken(Good):
        def reset(self, task, key):
            state = super().reset(task, key)
            return state if reset is None else reset(state)

        def step(self, task, state, action):
            after = super().step(task, state, action)
            return after if step is None else step(after)

    for name, value in members.items():
        setattr(Broken, name, value)
    return Broken()


def put(name, value):
    """A state with one field replaced by value(state)."""
    return lambda state: eqx.tree_at(lambda s: getattr(s, name), state, value(state))


def both(change):
    return {"step": change, "reset": change}


def distribution(**changes):
    return dataclasses.replace(Good.tasks, **changes)


def truncates_never(state):
    return put("truncated", lambda s: jnp.bool_(False))(state)


def terminates_on_time(state):
    late = state.steps >= Good.episode_length
    return put("terminated", lambda s: late)(truncates_never(state))


BROKEN = {
    "missing-cost": lambda: broken(cost_names=()),
    "cost-limit": lambda: broken(tasks=distribution(cost_limit=(1.0, 1.0))),
    "task-fields": lambda: broken(tasks=distribution(draw={n: draw(0, 1, "drag") for n in ("train", "shifted")})),
    "task-range": lambda: broken(tasks=distribution(draw={n: draw(2.0, 3.0) for n in ("train", "shifted")})),
    "not-traceable": lambda: broken(step=lambda s: dataclasses.replace(s) if s.obs[0] > 0 else s),
    "raises": lambda: broken(step=lambda s: [s][1]),
    "no-state": lambda: broken(step=lambda s: (s.obs, s.reward, s.cost)),
    "obs-shape": lambda: broken(observation_size=3),
    "cost-shape": lambda: broken(**both(put("cost", lambda s: s.cost[0]))),
    "reward-dtype": lambda: broken(**both(put("reward", lambda s: s.reward > 0))),
    "world-changes": lambda: broken(step=put("world", lambda s: s.world[None])),
    "nan-cost": lambda: broken(step=put("cost", lambda s: jnp.where(s.steps == 3, jnp.nan, s.cost))),
    "nan-obs": lambda: broken(step=put("obs", lambda s: s.obs / jnp.where(s.steps == 6, 0.0, 1.0))),
    "negative-cost": lambda: broken(step=put("cost", lambda s: s.cost - 1.0)),
    "cost-kind": lambda: broken(cost_kind="indicator", step=put("cost", lambda s: 2 * s.cost)),
    "reset-pays": lambda: broken(reset=put("cost", lambda s: s.cost + 1.0)),
    "steps": lambda: broken(step=put("steps", lambda s: s.steps * 0)),
    "ends-at-reset": lambda: broken(reset=put("terminated", lambda s: jnp.bool_(True))),
    "truncated-early": lambda: broken(step=put("truncated", lambda s: s.steps >= 4)),
    "never-truncated": lambda: broken(step=truncates_never),
    "timeout-terminates": lambda: broken(step=terminates_on_time),
    "not-deterministic": lambda: broken(step=put("reward", lambda s: s.reward + np.float32(np.random.rand()))),  # noqa: NPY002
    "cost-names": lambda: broken(cost_names=("right/left",)),
    "episode-length": lambda: broken(episode_length=6.5),
    "observation-size": lambda: broken(observation_size="2"),
    "action-size": lambda: broken(action_size=0),
    "task-draw": lambda: broken(tasks=distribution(draw={"train": draw(0.0, 0.5)})),
    "position-shape": lambda: broken(position=lambda self, state: None),
    "missing-member": lambda: type("Nothing", (), {"reset": Good.reset})(),
}
NOTES = ("truncated-early",)  # what may be meant


@pytest.mark.parametrize("fault", BROKEN)
def test_each_fault_is_found_by_its_name(fault):
    findings = check(BROKEN[fault]())
    assert fault in [finding.name for finding in findings if finding.fatal != (fault in NOTES)], findings
    assert all("\n" not in str(finding) for finding in findings)


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("obs[1] goes to 1e+30", put("obs", lambda s: s.obs.at[1].set(1e30))),
        ("reward adds up to inf", put("reward", lambda s: jnp.float32(1e38))),
        (" adds up to ", put("cost", lambda s: jnp.full_like(s.cost, 1e19))),
    ],
)
def test_what_is_finite_alone_but_not_in_a_sum_or_a_square_is_too_large(words, change):
    found = {finding.name: finding for finding in check(broken(step=change)) if finding.fatal}
    assert list(found) == ["too-large"] and words in str(found["too-large"])
    assert not [finding for finding in check(Good()) if finding.fatal]


def test_kinds_of_costs():
    """Costs of 0 and 1 may be called indicators; a kind that there is not is named."""
    assert check(broken(cost_kind="indicator")) == []
    (found,) = check(broken(cost_kind="binary"))
    assert str(found) == "cost-kind: cost_kind is 'binary'; give one of indicator, graded"


def test_a_good_environment_passes():
    assert check(Good()) == []
    require(Good())


def test_a_fault_stops_a_training_with_one_line():
    with pytest.raises(ContractError, match=r"^nan-cost: right is not finite at step 3 of a reference task$"):
        require(BROKEN["nan-cost"]())


@pytest.mark.slow
def test_what_draws_numbers_is_named_as_the_environment_has_it():
    (finding,) = check(BROKEN["not-deterministic"]())
    assert finding.text.endswith("; draw from jax.random only")

    class Random(Tiny):
        def obs(self, place):
            return np.array([place, np.random.rand()])  # noqa: NPY002

    (finding,) = check(tiny(Random))
    assert finding.name == "not-deterministic"
    assert finding.text.endswith("; draw from self.np_random, which super().reset(seed=seed) seeds, only")


def test_an_environment_without_a_position_passes():
    class Placeless(Good):
        position = property()  # pyright: ignore

    assert not hasattr(Placeless(), "position") and check(Placeless()) == []


def test_a_parameter_that_changes_nothing_is_a_note():
    env = broken(step=lambda s: s)
    parameters = {"drift": DRIFT, "colour": DRIFT}
    both_drawn = {n: lambda key: {"drift": jnp.float32(0.3), "colour": jnp.float32(0.4)} for n in ("train", "shifted")}
    type(env).tasks = distribution(parameters=parameters, draw=both_drawn)
    (finding,) = check(env)
    assert finding.name == "unused-parameter" and "'colour'" in finding.text and not finding.fatal


# The others are made of the same parts and take up to half a minute of compilation each.
@pytest.mark.parametrize(
    "name",
    ["bandit", "navigation", *(pytest.param(x, marks=pytest.mark.slow) for x in ("point-circle", f"{CRANE}:env"))],
)
def test_ours_have_no_fault(name):
    assert [finding for finding in check(make(name)) if finding.fatal] == []


def test_what_mjx_cannot_simulate_is_a_note(tmp_path):
    pytest.importorskip("mujoco.mjx")
    crane = make(f"{CRANE}:env")
    assert isinstance(crane, OwnRobot)
    mjcf = tmp_path / "crates.xml"
    crates = "".join(
        f'<body pos="3 0 {z}"><freejoint/><geom type="{kind}" size="0.1 0.1 0.1"/></body>'
        for kind, z in (("box", 0.1), ("cylinder", 0.4))
    )
    mjcf.write_text(crane.mjcf.read_text().replace("</worldbody>", f"{crates}</worldbody>"))
    (finding,) = check(dataclasses.replace(crane, mjcf=mjcf))
    assert finding.name == "mjx" and "cannot simulate crates.xml" in finding.text and not finding.fatal
