"""Our environments at Gymnasium: its own check, and episodes that are those of the functions they are made of."""

import subprocess
import sys
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics
from toy_env import Counter

import metacpo
from metacpo.envs import ENVIRONMENTS
from metacpo.envs.base import action_bound
from metacpo.envs.costs import SummedCosts, total_cost
from metacpo.envs.gymnasium.exporting import GymnasiumEnv, GymnasiumVectorEnv
from metacpo.envs.tasks import TaskError
from metacpo.envs.worlds import _step, episode_key
from metacpo.gymnasium_ids import FAMILIES, gymnasium_id, register

BOUNDED = sorted(set(ENVIRONMENTS) - {"bandit", "tabular"})


def actions_of(env: gymnasium.Env, steps: int) -> np.ndarray:
    env.action_space.seed(0)
    return np.stack([env.action_space.sample() for _ in range(steps)])


def assert_same(ours, theirs, tolerance=1e-5):
    """Observation (and reward, ends, infos) of two vector environments, masks and kinds of number too."""
    for mine, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert mine.dtype == other.dtype and mine.shape == other.shape
        np.testing.assert_allclose(mine, other, atol=tolerance, rtol=tolerance)
    mine, other = ours[-1], theirs[-1]
    assert mine.keys() == other.keys()
    for name, value in mine.items():
        assert value.dtype == other[name].dtype
        np.testing.assert_allclose(value, other[name], atol=tolerance, rtol=tolerance, err_msg=name)


def test_every_family_is_registered_once_and_quietly():
    assert tuple(ENVIRONMENTS) == FAMILIES
    assert gymnasium_id("car-circle-hazard") == "metacpo/CarCircleHazard-v0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
    for name in FAMILIES:
        assert gymnasium.spec(gymnasium_id(name)).max_episode_steps is None


def test_importing_metacpo_registers_without_importing_jax():
    code = (
        "import sys, metacpo, gymnasium; assert 'jax' not in sys.modules; gymnasium.spec('metacpo/PointCircle-v0');"
        "assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.filterwarnings("ignore:.*A Box observation space m.*infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*A Box action space m.*infinity:UserWarning")
@pytest.mark.filterwarnings("ignore:.*For Box action spaces, we recommend:UserWarning")
def test_check_env(name):
    env = gymnasium.make(gymnasium_id(name)).unwrapped
    check_env(env)
    bound = 1.0 if name in BOUNDED else np.inf
    np.testing.assert_array_equal(env.action_space.high, np.full(env.action_space.shape, bound, np.float32))
    np.testing.assert_array_equal(env.action_space.low, -env.action_space.high)


@pytest.mark.parametrize("name", ["point-circle", "car-circle-hazard", "navigation"])
def test_actions_beyond_the_bound_act_as_those_at_it(name):
    env = gymnasium.make(gymnasium_id(name))
    ends = []
    for factor in (1.0, 3.0):
        env.reset(seed=5)
        ends.append([env.step(factor * np.array([1.0, -1.0]))[0] for _ in range(5)])
    np.testing.assert_array_equal(*ends)


def test_the_bound_passes_through_summed_costs_and_is_infinite_where_none_is_named():
    assert action_bound(SummedCosts(metacpo.make("navigation"))) == 1.0
    assert action_bound(Counter()) == np.inf == action_bound(SummedCosts(Counter()))


def test_a_seed_gives_the_episode_and_the_sequence_of_those_after_it():
    env = gymnasium.make("metacpo/Navigation-v0", split="train")
    starts = [[env.reset(seed=seed)[0], env.reset()[0], env.reset()[0]] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(starts[0], starts[1])
    rows = np.concatenate([starts[0], starts[2]])
    assert len(np.unique(rows, axis=0)) == 6


@pytest.mark.parametrize(("name", "split"), [("car-circle-hazard", None), ("navigation", "shifted")])
def test_an_episode_is_that_of_the_bare_functions(name, split):
    ours, bare = gymnasium.make(gymnasium_id(name), split=split), metacpo.make(name)
    obs, info = ours.reset(seed=3)
    word = np.random.Generator(np.random.PCG64(np.random.SeedSequence(3))).integers(2**32, size=2, dtype=np.uint32)
    draw, start = jax.random.split(episode_key(jnp.asarray(word)))
    task = bare.tasks.make({}) if split is None else bare.tasks.sample(draw, split)
    state, step = jax.jit(bare.reset)(task, start), jax.jit(bare.step)
    assert set(info) == {"cost_limit"} and info["cost_limit"] == pytest.approx(float(task.cost_limit[0]))
    for action in actions_of(ours, 12):
        np.testing.assert_allclose(obs, state.obs, atol=1e-5)
        obs, reward, terminated, truncated, info = ours.step(action)
        state = step(task, state, jnp.asarray(action))
        assert type(reward) is float and reward == pytest.approx(float(state.reward), abs=1e-6)
        assert (terminated, truncated) == (bool(state.terminated), bool(state.truncated))
        costs = [info[f"cost_{named}"] for named in bare.cost_names]
        np.testing.assert_allclose(costs, state.cost, atol=1e-6)
        assert type(info["cost"]) is float and info["cost"] == float(total_cost(bare, np.asarray(costs)[None])[0])
    np.testing.assert_allclose(obs, state.obs, atol=1e-5)


@pytest.mark.parametrize("kind", ["indicator", pytest.param("graded", marks=pytest.mark.slow)])
def test_the_named_costs_are_paid_and_make_the_total(kind):
    """Straight on, over the walls at 0.05 m, from 20 starts on a floor of many hazards: one is met beyond a wall."""
    task = {"wall": 0.05, "hazards": 8, "extent": 2.0}
    env = gymnasium.make("metacpo/PointCircleHazard-v0", task=task, cost_kind=kind)
    paid = []
    for seed in range(20):
        env.reset(seed=seed)
        infos = [env.step(np.array([1.0, 0.0]))[-1] for _ in range(100)]
        paid += [[info[name] for name in ("cost", "cost_walls", "cost_hazards")] for info in infos]
    total, walls, hazards = np.asarray(paid).T
    np.testing.assert_array_equal(total, walls + hazards if kind == "graded" else np.maximum(walls, hazards))
    assert np.any((walls > 0) & (hazards > 0))


def test_episodes_end_as_the_environments_do():
    circle = gymnasium.make("metacpo/PointCircle-v0")
    assert circle.get_wrapper_attr("episode_length") == 500
    circle.reset(seed=0)
    ends = [circle.step(action)[2:4] for action in actions_of(circle, 500)]
    assert ends == [(False, False)] * 499 + [(False, True)]
    bandit = gymnasium.make("metacpo/Bandit-v0")
    bandit.reset(seed=0)
    assert bandit.step(np.array([9.0, -9.0]))[2:4] == (True, False)


def vector_pair(name: str, count: int, **settings) -> tuple[gymnasium.vector.VectorEnv, SyncVectorEnv]:
    ours = gymnasium.make_vec(gymnasium_id(name), num_envs=count, **settings)
    theirs = gymnasium.make_vec(gymnasium_id(name), num_envs=count, vectorization_mode="sync", **settings)
    assert type(ours) is GymnasiumVectorEnv and type(theirs) is SyncVectorEnv
    assert ours.metadata["autoreset_mode"] is theirs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    for space in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(ours, space) == getattr(theirs, space)
    return ours, theirs


@pytest.mark.parametrize(
    ("name", "steps"),
    [(name, 8) for name in BOUNDED if name != "navigation"]
    + [pytest.param("navigation", 210, marks=pytest.mark.slow), ("bandit", 6), ("tabular", 40)],
)
def test_the_vector_entry_point_gives_what_sync_vector_env_gives(name, steps):
    """Also through the ends of episodes, where both reset one step later."""
    ours, theirs = vector_pair(name, 3)
    assert_same(ours.reset(seed=7), theirs.reset(seed=7))
    ours.action_space.seed(0)
    ended = 0
    for _ in range(steps):
        actions = ours.action_space.sample()
        mine, other = ours.step(actions), theirs.step(actions)
        assert_same(mine, other, tolerance=1e-4)
        ended += np.sum(mine[2] | mine[3])
    assert ended == {"navigation": 6, "bandit": 9, "tabular": 9}.get(name, 0)
    assert_same(ours.reset(seed=[9, None, 2]), theirs.reset(seed=[9, None, 2]))


def test_worlds_that_end_at_different_times_begin_anew_alone():
    """Counter's worlds end at random; its tasks have no engine behind them, so the numbers must be equal."""
    ours = GymnasiumVectorEnv(Counter(), 4, cost_limit=3)
    counter = Counter()
    theirs = SyncVectorEnv([lambda: GymnasiumEnv(counter, cost_limit=3)] * 4)
    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    lonely = 0
    for i in range(60):
        actions = np.full((4, 1), 0.1 * i, np.float32)
        mine, other = ours.step(actions), theirs.step(actions)
        assert_same(mine, other)
        anew = ~mine[-1].get("_cost", np.zeros(4, bool))
        np.testing.assert_array_equal(mine[1][anew], 0)
        lonely += 0 < anew.sum() < 4
    assert lonely > 5


def test_a_mask_resets_those_worlds_alone():
    ours, theirs = vector_pair("navigation", 3)
    for env in (ours, theirs):
        env.reset(seed=0)
        for _ in range(5):
            before = env.step(np.ones((3, 2), np.float32))[0]
    mask, task = np.array([False, True, False]), {"goal_x": -1.0}
    mine, other = (env.reset(seed=4, options={"reset_mask": mask, "task": task}) for env in (ours, theirs))
    assert_same(mine, other)
    np.testing.assert_array_equal(mine[0][[0, 2]], before[[0, 2]])
    np.testing.assert_allclose(ours.tasks.params["goal_x"], [1.2, -1.0, 1.2])
    assert_same(ours.step(np.ones((3, 2))), theirs.step(np.ones((3, 2))))


def test_the_vector_environment_counts_episodes_under_gymnasiums_wrapper():
    env = RecordEpisodeStatistics(gymnasium.make_vec("metacpo/Tabular-v0", num_envs=2))
    env.reset(seed=0)
    infos = [env.step(np.zeros((2, 4), np.float32))[-1] for _ in range(13)]
    np.testing.assert_array_equal(infos[11]["episode"]["l"], [12, 12])
    assert "episode" not in infos[12] and "cost" not in infos[12] and infos[12]["_cost_limit"].all()


def test_nothing_is_compiled_again():
    env = GymnasiumVectorEnv(Counter(), 2)
    before = _step._cache_size()
    env.reset(seed=0)
    for _ in range(40):
        env.step(np.zeros((2, 1)))
    env.reset(options={"task": {"breaking": 0.5}})
    env.step(np.zeros((2, 1)))
    assert _step._cache_size() == before + 1


def test_tasks_can_be_given_changed_and_drawn():
    env = gymnasium.make("metacpo/PointCircle-v0", task={"radius": 1.1}).unwrapped
    env.reset(seed=0)
    assert {name: round(float(x), 3) for name, x in env.task.params.items()} == {"radius": 1.1, "wall": 0.938}
    env.reset(options={"task": {"wall": 0.5}})
    env.reset()
    assert {name: round(float(x), 3) for name, x in env.task.params.items()} == {"radius": 1.25, "wall": 0.5}
    drawn = gymnasium.make("metacpo/PointCircle-v0", split="shifted").unwrapped
    radii = [float((drawn.reset(), drawn.task.params["radius"])[1]) for _ in range(4)]
    assert len(set(radii)) == 4 and all(2.0 <= radius <= 2.5 for radius in radii)


def test_the_limit_is_the_tasks_or_the_given_one():
    env = gymnasium.make("metacpo/Navigation-v0", split="train")
    limits = [env.reset(seed=seed)[1]["cost_limit"] for seed in range(4)]
    assert len(set(limits)) == 4 and all(8 * 0.6 <= limit <= 8 * 1.4 for limit in limits)
    assert env.step(np.zeros(2))[-1]["cost_limit"] == limits[-1]
    assert gymnasium.make("metacpo/Navigation-v0", split="train", cost_limit=5.0).reset()[1] == {"cost_limit": 5.0}
    _, info = gymnasium.make_vec("metacpo/CarCircleHazard-v0", num_envs=3, cost_limit=(20.0, 5.0)).reset()
    np.testing.assert_array_equal(info["cost_limit"], [[20, 5]] * 3)
    _, info = gymnasium.make("metacpo/CarCircleHazard-v0", cost_limit=(20.0, 5.0)).reset()
    np.testing.assert_array_equal(info["cost_limit"], [20, 5])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": {"radios": 1.0}}, r"task: unknown field 'radios'; allowed: radius, wall"),
        ({"task": {"radius": 99.0}}, r"task.radius: 99.0 is not in \[0.1, 5\] m"),
        ({"split": "test"}, r"split: 'test' is not one of train, held-out, shifted"),
        ({"split": "train", "task": {}}, "task, split: give one"),
        ({"cost_limit": -1.0}, r"cost_limit: -1.0 is not in \[0, inf\)"),
        ({"cost_limit": 1e39}, r"cost_limit: 1e\+39 is inf in float32"),
        ({"cost_limit": float("nan")}, r"cost_limit: nan is not in \[0, inf\)"),
        (
            {"cost_limit": (1.0, 2.0)},
            r"cost_limit: \[1.0, 2.0\] has 2 numbers; wanted: one for the sum, or 1 \(walls\)",
        ),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(settings, said):
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(TaskError, match=said) as error:
            make("metacpo/PointCircle-v0", **settings)
        assert "\n" not in str(error.value)


def test_options_actions_and_rendering_are_checked():
    env = gymnasium.make_vec("metacpo/Navigation-v0", num_envs=2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros((2, 2)))
    with pytest.raises(TaskError, match=r"options: unknown key 'tasks'; allowed: task"):
        env.reset(options={"tasks": {}})
    with pytest.raises(TaskError, match=r"task.goal_x: 7 is not in"):
        env.reset(options={"task": {"goal_x": 7}})
    with pytest.raises(TaskError, match=r"task: 3 is not a dict of parameters"):
        env.reset(options={"task": 3})
    with pytest.raises(ValueError, match=r"options.reset_mask"):
        env.reset(options={"reset_mask": np.zeros(2, bool)})
    with pytest.raises(ValueError, match="seed: 3 seeds for 2 environments"):
        env.reset(seed=[1, 2, 3])
    env.reset()
    with pytest.raises(ValueError, match=r"actions: shape \(2, 1\), wanted \(2, 2\)"):
        env.step(np.zeros((2, 1)))
    with pytest.raises(TaskError, match="draws a task of split 'train' at every reset"):
        gymnasium.make("metacpo/Navigation-v0", split="train").reset(options={"task": {}})
    for make in (gymnasium.make, gymnasium.make_vec):
        with pytest.raises(TypeError, match="render_mode: 'human' is not supported"):
            make("metacpo/Navigation-v0", render_mode="human")
