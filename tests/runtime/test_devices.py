"""Functions of tasks over devices: the same results, wherever tasks lie, and only `together` mixes them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.runtime.devices import (
    DeviceError,
    calls_at_once,
    check_devices,
    devices_in_use,
    on_devices,
    spread,
    together,
)

TASKS = jnp.arange(8.0, dtype=jnp.float32)


def compiled(function, devices, *arguments):
    with devices_in_use(devices):
        return jax.jit(function).lower(*on_devices(arguments, devices)).compile()


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_each_device_has_its_own_tasks_and_the_closure_is_the_same_for_all(devices):
    seen = []

    def program(tasks, factor):
        def own(tasks, rows):
            seen.append((tasks.shape, rows.shape, calls_at_once()))
            return factor * tasks + rows[1], rows

        rows = jnp.stack([jnp.zeros(8), tasks**2])
        assert calls_at_once() == 1
        total, rows = spread(own, in_axes=(0, 1), out_axes=(0, 1))(tasks, rows)
        return total, rows, jnp.sum(total)

    factor = jnp.float32(3)
    run = compiled(program, devices, TASKS, factor)
    total, rows, mean = run(*on_devices((TASKS, factor), devices))
    assert seen == [((8 // devices,), (2, 8 // devices), devices)]
    np.testing.assert_array_equal(total, 3 * TASKS + TASKS**2)
    np.testing.assert_array_equal(rows[1], TASKS**2)
    assert float(mean) == float(jnp.sum(3 * TASKS + TASKS**2))
    assert len(total.devices()) == devices
    on_one = on_devices(total, 1)
    assert len(on_one.devices()) == 1
    np.testing.assert_array_equal(on_one, total)  # all of it, although each device has its tasks alone


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_what_mixes_tasks_sees_all_of_them(devices):
    def program(tasks):
        def own(tasks):
            return together(lambda x: {"ranked": x - jnp.mean(x), "reversed": x[::-1]}, tasks)

        return spread(own, in_axes=(0,), out_axes=0)(tasks)

    result = compiled(program, devices, TASKS)(*on_devices((TASKS,), devices))
    np.testing.assert_array_equal(result["ranked"], TASKS - 3.5)
    np.testing.assert_array_equal(result["reversed"], TASKS[::-1])


def test_an_array_on_one_device_stays_where_it_is():
    """A program for one device takes it as it is: nothing is committed to a device that a user did not choose."""
    assert on_devices(TASKS, 1) is TASKS


def test_devices_that_cannot_share_are_refused():
    check_devices(4, {"meta.tasks": 8})
    with pytest.raises(DeviceError, match=r"^devices: 5 asked for; allowed: 1 to 4 \(cpu\)$"):
        check_devices(5, {})
    with pytest.raises(DeviceError, match=r"^devices: 0 asked for; allowed: 1 to 4"):
        check_devices(0, {})
    with pytest.raises(DeviceError, match=r"^devices: 4 cannot share warmup.tasks = 6; allowed: 1, 2, 3$"):
        check_devices(4, {"meta.tasks": 8, "warmup.tasks": 6})
