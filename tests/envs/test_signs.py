"""Parameters that are −1 or 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.envs import make
from metacpo.envs.signs import require_sign, signs
from metacpo.envs.tasks import TaskError


def test_draws_are_fair_and_independent():
    pairs = np.asarray(jax.vmap(lambda key: signs(key, 2))(jax.random.split(jax.random.key(0), 1000)))
    assert set(np.unique(pairs)) == {-1.0, 1.0}
    counts = [np.sum(np.all(pairs == pair, axis=1)) for pair in ((1, 1), (1, -1), (-1, 1), (-1, -1))]
    assert min(counts) > 200  # 250 expected, standard deviation 14


def test_zero_is_no_sign():
    for value in (-1.0, 1.0):
        require_sign({"side": jnp.float32(value)}, "side")
    with pytest.raises(TaskError, match=r"^task.side: 0 is not -1 or 1$"):
        require_sign({"side": jnp.float32(0)}, "side")


@pytest.mark.parametrize(
    ("value", "says"), [(0, "0 is not -1 or 1"), (0.5, "0.5 is not a whole number of"), (2, r"2 is not in \[-1, 1\]")]
)
@pytest.mark.parametrize("name", ["navigation-lanes", "point-circle-signs"])
def test_a_task_is_refused_in_one_line(name, value, says):
    with pytest.raises(TaskError, match=f"^task.side: {says}"):
        make(name).tasks.make({"side": value})
