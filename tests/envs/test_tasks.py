"""Tasks: the ranges of every split, how they relate, and what `make` refuses."""

import inspect
import math
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import make
from metacpo.envs.tasks import SPLITS, Parameter, TaskDistribution, TaskError, with_cost_limit
from metacpo.runtime.numeric import shown

TASKS = make("point-circle").tasks
COUNT = 500
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def drawn():
    """{split: (radius, wall)} of COUNT tasks drawn with the same key."""
    batches = {split: TASKS.sample_batch(KEY, COUNT, split) for split in SPLITS}
    return {
        split: tuple(np.asarray(task.params[name], np.float64) for name in ("radius", "wall"))
        for split, task in batches.items()
    }


@pytest.mark.parametrize(
    ("split", "radius", "ratio"),
    [
        ("train", (1.0, 1.5), (0.55, 0.75)),
        ("held-out", (1.0, 1.5), (0.55, 0.75)),
        ("shifted", (2.0, 2.5), (0.55, 0.65)),
    ],
)
def test_ranges_are_filled_and_kept(drawn, split, radius, ratio):
    R, wall = drawn[split]
    rounding = 0.0005 / R
    for values, (low, high), slack in ((R, radius, 1e-6), (wall / R, ratio, rounding + 1e-6)):
        assert np.all((values >= low - slack) & (values <= high + slack))
        # 500 uniform draws leave less than 2 % of the range empty at either end (chance of failing 4e-5).
        assert values.min() < low + 0.02 * (high - low)
        assert values.max() > high - 0.02 * (high - low)
    assert abs(np.corrcoef(R, wall / R)[0, 1]) < 0.15


def test_splits_differ_for_the_same_key(drawn):
    """Held-out tasks have the train distribution, but no training run draws them."""
    train, held_out, shifted = (drawn[split][0] for split in SPLITS)
    assert len(np.intersect1d(train, held_out)) < 0.01 * COUNT
    assert abs(np.corrcoef(train, held_out)[0, 1]) < 0.15
    assert abs(np.corrcoef(train, shifted)[0, 1]) < 0.15
    assert shifted.min() > train.max() + 0.4


def test_walls_are_whole_millimetres(drawn):
    for _, wall in drawn.values():
        np.testing.assert_allclose(1000 * wall, np.round(1000 * wall), atol=1e-3)
        assert np.any(np.round(1000 * wall) % 10 != 0)


def test_a_batch_is_a_loop_over_its_keys():
    batch = TASKS.sample_batch(KEY, 4, "shifted")
    for i, key in enumerate(jax.random.split(KEY, 4)):
        one = TASKS.sample(key, "shifted")
        assert jax.tree.all(jax.tree.map(lambda many, x, i=i: bool(jnp.all(many[i] == x)), batch, one))


def test_sampling_depends_on_the_key_only():
    again = TASKS.sample(KEY)
    np.testing.assert_array_equal(TASKS.sample(KEY).params["radius"], again.params["radius"])
    assert float(TASKS.sample(jax.random.key(1)).params["radius"]) != float(again.params["radius"])


def test_unknown_split_is_refused():
    with pytest.raises(TaskError, match="split: 'test' is not one of train, held-out, shifted"):
        TASKS.sample(KEY, "test")


def test_make_fills_in_the_reference_task():
    task = TASKS.make({"radius": 2})
    assert float(task.params["radius"]) == 2
    assert float(task.params["wall"]) == pytest.approx(0.938)  # 0.75 · 1.25 in millimetres
    assert float(TASKS.make({}).params["radius"]) == 1.25
    np.testing.assert_array_equal(task.cost_limit, [25.0])
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(task))


@pytest.mark.parametrize("edge", [0.1, 5.0])
def test_make_takes_the_ends_of_the_range(edge):
    assert float(TASKS.make({"radius": edge}).params["radius"]) == pytest.approx(edge)


@pytest.mark.parametrize(
    "value",
    [0.09, 5.01, -1.0, float("nan"), float("inf"), 10**400, -(10**5000)],
    ids=lambda value: shown(value)[:8],
)
def test_make_refuses_what_is_out_of_range(value):
    with pytest.raises(TaskError) as error:
        TASKS.make({"radius": value})
    assert str(error.value) == f"task.radius: {shown(value)} is not in [0.1, 5] m"


@pytest.mark.parametrize(
    "value", [True, "1.3", None, [1.3], 1.3 + 0j, np.array([1.3]), np.str_("1.3"), np.True_], ids=repr
)
def test_make_names_the_type_of_what_is_no_number(value):
    with pytest.raises(TaskError) as error:
        TASKS.make({"radius": value})
    kind = type(value).__name__
    assert str(error.value) == f"task.radius: {shown(value)} is of type {kind}, not a number in [0.1, 5] m"


@pytest.mark.parametrize("value", [2, np.float32(2), np.int64(2), np.array(2.0), jnp.float32(2)], ids=repr)
def test_make_takes_every_kind_of_number(value):
    assert float(TASKS.make({"radius": value}).params["radius"]) == 2


def limited(cost_limit):
    """A distribution with this limit, made as users make it: beartype, which tests run under, would look first."""
    made = object.__new__(TaskDistribution)
    inspect.unwrap(TaskDistribution.__init__)(made, {}, {}, cost_limit)
    return made


@pytest.mark.parametrize("limit", [-1.0, float("nan"), float("inf"), 1e39, "5", None, True, [1.0]], ids=repr)
def test_a_limit_that_is_no_number_from_zero_on_is_refused_when_the_distribution_is_made(limit):
    with pytest.raises(TaskError) as error:
        limited((1.0, limit))
    assert str(error.value) == f"cost_limit: {limit!r} is not a number in [0, 3.40282e+38]"


def test_what_else_a_distribution_cannot_be_made_of():
    with pytest.raises(TaskError, match=r"^cost_limit: '5' is not a tuple; give one number for each cost$"):
        limited("5")
    with pytest.raises(TaskError, match=r"^parameters.gain: low is nan, not a number$"):
        TaskDistribution({"gain": Parameter(1.0, low=math.nan, high=2.0, unit="m")}, {}, (1.0,))
    with pytest.raises(TaskError, match=r"^limit_factors: \(2.0, 1.0\) is not \(low, high\), 0 <= low <= high$"):
        replace(TASKS, limit_factors=(2.0, 1.0))
    assert limited((0.0, np.float32(5), np.array(3))).cost_limit == (0, 5, 3)


def test_a_split_without_a_sampler_is_one_line():
    without = replace(TASKS, draw={"train": TASKS.draw["train"]})
    without.sample_batch(KEY, 2, "held-out")
    with pytest.raises(TaskError) as error:
        without.sample_batch(KEY, 2, "shifted")
    assert str(error.value) == "draw: has no 'shifted'; give a sampler for 'train' and one for 'shifted'"


@pytest.mark.parametrize(
    ("drawn", "said"),
    [
        ({"radius": jnp.ones(3)}, "draw: 'train' gives radius with shape (3,); wanted one number, shape ()"),
        (None, "draw: 'train' gives None; wanted a dict with one number for each parameter"),
    ],
)
def test_a_sampler_draws_one_number_for_each_parameter(drawn, said):
    with pytest.raises(TaskError) as error:
        replace(TASKS, draw={"train": lambda key: drawn}).sample_batch(KEY, 2)
    assert str(error.value) == said


def test_make_refuses_what_is_infinite_in_single_precision():
    tasks = TaskDistribution({"far": Parameter(1.0, 0.0, 1e40, "m")}, {}, (1.0,))
    with pytest.raises(TaskError, match=r"^task\.far: 1e\+39 is infinite in float32, .*"):
        tasks.make({"far": 1e39})


def test_make_refuses_unknown_fields():
    with pytest.raises(TaskError, match="task: unknown field 'raduis'; allowed: radius, wall"):
        TASKS.make({"raduis": 1.3})


def test_limits_of_a_distribution_and_of_drawn_tasks():
    tight = TASKS.with_cost_limit((12.5,))
    np.testing.assert_array_equal(tight.sample(KEY).cost_limit, [12.5])
    np.testing.assert_array_equal(tight.make({}).cost_limit, [12.5])
    np.testing.assert_array_equal(tight.sample(KEY).params["wall"], TASKS.sample(KEY).params["wall"])
    np.testing.assert_array_equal(TASKS.sample(KEY).cost_limit, [25.0])

    batch = with_cost_limit(TASKS.sample_batch(KEY, 3), 7.0)
    np.testing.assert_array_equal(batch.cost_limit, [[7.0]] * 3)
    assert batch.cost_limit.dtype == jnp.float32


def test_limits_vary_where_a_family_says_so_and_nothing_else_changes():
    varied = replace(TASKS, limit_factors=(0.5, 1.5))
    tasks, plain = varied.sample_batch(KEY, COUNT), TASKS.sample_batch(KEY, COUNT)
    share = np.asarray(tasks.cost_limit)[:, 0] / 25
    assert 0.5 <= share.min() < 0.52 and 1.48 < share.max() <= 1.5
    assert abs(share.mean() - 1) < 0.05
    for name in plain.params:
        np.testing.assert_array_equal(tasks.params[name], plain.params[name])
        # Drawn with a key of its own: independent of where the parameters lie in their ranges.
        assert abs(np.corrcoef(share, tasks.params[name])[0, 1]) < 4 / math.sqrt(COUNT)
    assert np.any(share != np.asarray(varied.sample_batch(KEY, COUNT, "held-out").cost_limit)[:, 0] / 25)
    both = replace(varied, cost_limit=(25.0, 50.0)).sample(KEY).cost_limit
    np.testing.assert_allclose(both[1] / both[0], 2, rtol=1e-6)  # one draw for all limits
    np.testing.assert_array_equal(varied.make({}).cost_limit, [25.0])
    np.testing.assert_array_equal(plain.cost_limit, [[25.0]] * COUNT)
