"""Tasks over devices: each device has as many of them, and steps, updates and differentiates its own alone.

    with devices_in_use(4): ...        what is compiled here is compiled for four devices
    spread(f, in_axes, out_axes)       f over the devices in use, each with its own tasks; f itself where there is one
    together(f, tree)                  inside of it: f of all tasks

Nothing else is exchanged inside `spread`. Outside of it arrays are whole, and XLA divides the work on them as it
divides the arrays themselves: the sums over tasks, and the outer step's products with the Fisher matrix.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "tasks"  # the mesh's only one
Axes = int | None | tuple[int | None, ...]  # as those of jax.vmap


class DeviceError(ValueError):
    """More devices than there are, or tasks that they cannot share; the message is one line with the remedy."""


def provide(count: int) -> None:
    """Let the processor count as so many devices, as far as it has cores. To be called before JAX's first operation.

    Where JAX runs on accelerators they are what counts.
    """
    if count > 1:
        jax.config.update("jax_num_cpu_devices", min(count, os.cpu_count() or 1))


def check_devices(count: int, tasks: Mapping[str, int]) -> None:
    """Raises DeviceError where there are not so many devices, or where they cannot share the tasks of a setting."""
    there = jax.devices()
    if not 1 <= count <= len(there):
        raise DeviceError(f"devices: {count} asked for; allowed: 1 to {len(there)} ({there[0].platform})")
    for name, number in tasks.items():
        if number % count:
            allowed = ", ".join(str(n) for n in range(1, len(there) + 1) if number % n == 0)
            raise DeviceError(f"devices: {count} cannot share {name} = {number}; allowed: {allowed}")


def mesh_of(count: int) -> Mesh:
    """The first `count` devices in a row."""
    return jax.make_mesh((count,), (AXIS,), axis_types=(AxisType.Auto,), devices=jax.devices()[:count])


@contextmanager
def devices_in_use(count: int) -> Iterator[None]:
    """What is traced and compiled meanwhile is for `count` devices."""
    if count == 1:
        yield
        return
    with jax.set_mesh(mesh_of(count)):
        yield


def results_whole(count: int) -> dict[str, Any]:
    """What `jax.jit` is told so that the results of a program for `count` devices are whole on every one of them."""
    return {} if count == 1 else {"out_shardings": NamedSharding(mesh_of(count), PartitionSpec())}


def on_devices(tree: Any, count: int) -> Any:
    """The arrays of a tree, whole on each of the first `count` devices, as a program for these takes and returns them;
    those that lie on one device anyhow stay where they are if one is enough."""
    if count > 1:
        whole = NamedSharding(mesh_of(count), PartitionSpec())
        return _moved(tree, lambda x: jax.make_array_from_callback(x.shape, whole, np.asarray(x).__getitem__))
    return _moved(tree, _on_one)


def _on_one(x: jax.Array) -> jax.Array:
    if len(x.devices()) == 1:
        return x
    return x.addressable_data(0) if x.is_fully_replicated else jax.device_put(x, jax.local_devices()[0])


def _moved(tree: Any, move: Callable[[jax.Array], jax.Array]) -> Any:
    """A tree with its arrays moved; keys of random numbers as the numbers that they are."""

    def one(x: jax.Array) -> jax.Array:
        if not jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return move(x)
        return jax.random.wrap_key_data(move(jax.random.key_data(x)), impl=jax.random.key_impl(x))

    return jax.tree.map(one, tree)


def spread(function: Callable[..., Any], in_axes: Axes, out_axes: Axes) -> Callable[..., Any]:
    """`function` of arrays over tasks, which treats every task alone, over the devices in use.

    in_axes, out_axes: which axis of the arrays of an argument, or of the result, counts tasks, as in `jax.vmap`; None
    for an argument that is the same for all. So is what the function closes over, which it may only compute with:
    `zeros_like` of it, say, would ask for an array of the whole mesh.
    """
    if AXIS not in jax.sharding.get_abstract_mesh().axis_names:
        return function
    # Unchecked, since a loop that starts from constants would have to say of each that it varies.
    return jax.shard_map(function, in_specs=_spec(in_axes), out_specs=_spec(out_axes), check_vma=False)


def together(function: Callable[[Any], Any], tree: Any) -> Any:
    """One's own part of function(tree), which may mix tasks (axis 0), where `spread` has parted them."""
    if not _parted():
        return function(tree)
    every = jax.tree.map(lambda x: jax.lax.all_gather(x, AXIS, tiled=True), tree)
    own = jax.tree.leaves(tree)[0].shape[0]
    first = own * jax.lax.axis_index(AXIS)
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, first, own), function(every))


def calls_at_once() -> int:
    """How many devices of this process will run what is traced now, each for itself."""
    return jax.sharding.get_abstract_mesh().shape[AXIS] if _parted() else 1


def _parted() -> bool:
    return AXIS in jax.sharding.get_abstract_mesh().manual_axes


def _spec(axes: Axes) -> Any:
    if isinstance(axes, tuple):
        return tuple(map(_spec, axes))
    return PartitionSpec(*[None] * axes, AXIS) if axes is not None else PartitionSpec()
