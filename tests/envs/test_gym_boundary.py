"""Whatever a Gymnasium environment answers: one line in the first step as in every later one, and nothing converted."""

import inspect

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.spaces import Box

from metacpo.cli.main import _one_line
from metacpo.envs import GymnasiumError, from_gymnasium
from metacpo.envs.check import check
from metacpo.envs.tasks import TaskDistribution, TaskError

from .tiny_gym import TASKS, Tiny, kind, refusal, tiny

NUMBERS = [1, 1.0, True, np.float32(1), np.int64(1), np.True_, np.array(1.0), np.array(1)]
ANSWERS = [
    ({"reward": None}, "T: reward is None after a step; make it one number"),
    ({"reward": [0.3]}, "T: reward is [0.3] after a step; make it one number"),
    ({"reward": "1"}, "T: reward is '1' after a step; make it one number"),
    ({"reward": 1 + 0j}, "T: reward is (1+0j) after a step; make it one number"),
    ({"reward": 10**400}, "T: step failed with OverflowError: int too large to convert to float"),
    ({"terminated": "False"}, "T: terminated is 'False' after a step; make it True or False"),
    ({"terminated": float("nan")}, "T: terminated is nan after a step; make it True or False"),
    ({"truncated": None}, "T: truncated is None after a step; make it True or False"),
    ({"info": None}, "T: info is None after a step; return a dict with 'cost'"),
    ({"info": {"cost": "much"}}, "T: info['cost'] is 'much' after a step; make it one number"),
    ({"info": {"cost": np.ones(1)}}, "T: info['cost'] is array([1.]) after a step; make it one number"),
    ({"obs": ["1", "2"]}, "T: an observation is ['1', '2']; make it an array of real numbers"),
    ({"obs": np.ones(2, complex)}, "T: an observation is array([1.+0.j, 1.+0.j]); make it an array of real numbers"),
    ({"obs": None}, "T: an observation is None; make it an array of real numbers"),
]


def played(env, steps=3, task=None):
    """The states of one world."""
    task = TASKS.make({}) if task is None else task
    states = [env.reset(task, jax.random.key(0))]
    for _ in range(steps):
        states.append(env.step(task, states[-1], jnp.array([0.5])))
    return jax.block_until_ready(states)


@pytest.mark.parametrize(("changed", "said"), ANSWERS)
def test_an_answer_that_is_none_is_one_line_in_the_first_step_and_in_a_later_one(changed, said):
    assert refusal(kind(changed=changed)) == said
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        played(tiny(kind(changed=changed, at=2)))
    assert _one_line(error.value) == said


@pytest.mark.parametrize("number", NUMBERS, ids=repr)
def test_every_kind_of_number_is_a_reward_and_a_cost(number):
    state = played(tiny(kind(changed={"reward": number, "info": {"cost": number}})), 1)[-1]
    assert float(state.reward) == 1 and state.cost.tolist() == [1]


@pytest.mark.parametrize("truth", [True, np.True_, np.array(True)], ids=repr)
def test_every_kind_of_truth_ends_an_episode(truth):
    assert bool(played(tiny(kind(changed={"terminated": truth})), 1)[-1].terminated)


def explode(*_, **__):
    raise RuntimeError("simulator\nexploded")


class Bare(Tiny):
    """`reset` has no seed."""

    def reset(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return np.zeros(2), {}


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (kind(step=explode), "T: step failed with RuntimeError: simulator exploded"),
        (kind(reset=explode), "T: reset failed with RuntimeError: simulator exploded"),
        (kind(__init__=explode), "make failed with RuntimeError: simulator exploded"),
        (kind(step=lambda self, action: None), "T: a step returns None; return 5 (Gymnasium) or 6 with the cost"),
        (kind(reset=lambda self, seed: np.zeros(2)), "T: a reset returns array([0., 0.]); return (observation, info)"),
        (Bare, "Bare: reset failed with TypeError: Bare.reset() got an unexpected keyword argument 'seed'"),
        (kind(action_space=Box(-1, 1, (0,))), "T: action_space is Box([], [], (0,), float32), which has no numbers"),
        (kind(observation_space=Box(-1, 1, (0,))), "T: observation_space is Box([], [], (0,), float32), which has no"),
        (type("NoSpaces", (gymnasium.Env,), {"__init__": lambda *_: None}), "NoSpaces: its spaces failed with Attrib"),
    ],
)
def test_a_failure_is_one_line_when_the_environment_is_made(env, said):
    assert refusal(env).startswith(said)


@pytest.mark.parametrize("place", [None, 1.0, (1.0,), (1.0, 2.0, 3.0), ("1", "2"), (None, 1.0)], ids=repr)
def test_a_position_is_two_numbers(place):
    assert refusal(position=lambda env: place) == f"Tiny: position gives {place!r}; make it two numbers"


def test_what_fails_between_episodes_is_one_line():
    env = tiny(kind(close=explode), episode_length=1)
    tasks = [TASKS.make({"gain": gain}) for gain in (0.1, 0.2, 0.3)]
    with pytest.raises(jax.errors.JaxRuntimeError) as error:
        for task in tasks:  # each builds one, and one more than a call needs is closed
            played(env, 1, task)
    assert _one_line(error.value) == "close failed with RuntimeError: simulator exploded"


# Beartype, which tests run under, would refuse the types first: the constructor as users have it.
plain = inspect.unwrap(from_gymnasium)


@pytest.mark.parametrize("length", [2.5, "10", True, 0, -3, float("nan"), [10]], ids=repr)
def test_an_episode_length_is_a_whole_number(length):
    with pytest.raises(GymnasiumError) as error:
        plain(lambda params: Tiny(1.0), TASKS, episode_length=length)
    assert str(error.value) == f"episode_length is {length!r}; give a whole number of steps, at least 1"


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("cost", "cost"), "cost_names has 'cost' twice; every cost needs a name of its own"),
        (("a/b",), "cost_names has 'a/b'; give text without / , and line breaks, and without spaces at its ends"),
        (("a,b",), "cost_names has 'a,b'; give text"),
        (("a\nb",), "cost_names has 'a\\nb'; give text"),
        (("",), "cost_names has ''; give text"),
        ((" cost",), "cost_names has ' cost'; give text"),
        ((3,), "cost_names has 3; give text"),
        ("cost", "cost_names is 'cost'; give a tuple of names, such as ('cost',)"),
        ((), "cost_names is empty; name at least one cost"),
    ],
)
def test_names_of_costs_are_checked(names, said):
    with pytest.raises(GymnasiumError) as error:
        plain(lambda params: Tiny(1.0), TASKS, cost_names=names)
    assert str(error.value).startswith(said)


def test_a_vector_valued_parameter_is_one_line():
    tasks = TaskDistribution(TASKS.parameters, {"train": lambda key: {"gain": jnp.ones(2)}}, (3.0,))
    env = tiny(tasks=tasks)
    with pytest.raises(TaskError) as error:
        env.tasks.sample_batch(jax.random.key(0), 3)
    assert str(error.value) == "draw: 'train' gives gain with shape (2,); wanted one number, shape ()"
    (finding,) = check(env)
    assert str(finding) == f"task-draw: {error.value}" and finding.fatal
