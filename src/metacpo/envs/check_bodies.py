"""What check-env asks of an environment with bodies: whether MuJoCo could move them, and whether MJX can."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from metacpo.envs.declared import TASKS, Finding
from metacpo.envs.physics import PhysicsError, engine
from metacpo.envs.physics.vary import changed, structure_faults, words
from metacpo.envs.tasks import SPLITS, Task


def broken_world(env: Any, lost: Bool[np.ndarray, "T B"], split: str) -> Finding | None:
    """The fault of worlds that are NaN because MuJoCo warned; None if none is, or for another reason."""
    said = getattr(getattr(env, "physics", None), "warning", None)
    if said is None or not lost.any():
        return None
    where = f"step {int(np.argwhere(lost)[0][0])} of a {split} task of {env.physics.mjcf.name}"
    remedy = "take a shorter timestep, weaker actuators, or a start without overlaps"
    return Finding("physics", f"MuJoCo gave up a world at {where} ({said.rstrip(' .')}); {remedy}")


def vary_faults(env: Any) -> Iterator[Finding]:
    """Of `vary`, on the reference task and on tasks of each split: whether it makes a robot, and always the same."""
    if getattr(env, "vary", None) is None:
        return
    tasks = [env.tasks.make({})]
    for split in SPLITS:
        batch = env.tasks.sample_batch(jax.random.key(0), TASKS, split)
        tasks += [jax.tree.map(lambda x, i=i: x[i], batch) for i in range(TASKS)]
    differs = False
    for task in tasks:
        params = {name: float(task.params[name]) for name in sorted(task.params)}
        try:
            model, again = (env.physics.model_of(params) for _ in range(2))
        except PhysicsError as error:
            yield Finding("vary", str(error).removeprefix("vary: "))
            return
        faults = list(structure_faults(env.physics.model, model))
        if differing := changed(model, again):
            text = f"makes another model when it is called twice ({', '.join(differing)})"
            faults = [f"{text}; a task is one robot, draw from params only"]
        if faults:
            yield Finding("vary", f"{faults[0]}, at {words(params)}")
            return
        differs = differs or bool(changed(env.physics.model, model))
    if not differs:
        yield Finding("vary", f"leaves the model of {len(tasks)} tasks as it is; fine if it is meant", fatal=False)
    yield from _reset_faults(env, tasks)


def _reset_faults(env: Any, tasks: list[Task]) -> Iterator[Finding]:
    """A varied model with which MuJoCo cannot begin."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *tasks)
    start = jax.jit(jax.vmap(env.reset, in_axes=(0, None)))(stacked, jax.random.key(0))
    for index in np.flatnonzero(np.isnan(np.asarray(start.obs)).any(axis=-1))[:1]:
        said = f"MuJoCo gives the world up at its reset ({env.physics.warning})"
        params = {name: float(value) for name, value in sorted(tasks[index].params.items())}
        yield Finding("vary", f"{said}, at {words(params)}")


def left_out_by_mjx(env: Any) -> Iterator[Finding]:
    """Whether MJX can simulate the model too: a note, for whoever wants a GPU."""
    if not hasattr(env, "with_physics"):
        return
    try:
        params = {name: float(value) for name, value in sorted(env.tasks.make({}).params.items())}
        env.with_physics(engine("mjx")).physics.model_of(params)
    except PhysicsError as error:
        yield Finding("mjx", str(error), fatal=False)
