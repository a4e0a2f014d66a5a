"""What usually goes wrong in an environment of one's own, found before a training is wasted on it.

`check(env)` runs whole episodes with random actions and says by name what breaks `Environment`'s contract. A later
check needs the earlier ones to pass, so mend the first fault and run it again.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from metacpo.envs.base import MEMBERS, ContractError, Environment, State, cost_kind
from metacpo.envs.check_bodies import broken_world, left_out_by_mjx, vary_faults
from metacpo.envs.declared import Finding, declared_faults, task_faults
from metacpo.envs.physics import PhysicsError
from metacpo.envs.tasks import Task

WORLDS = 4
LARGEST = 1.8e19  # its square is where float32 ends
FLOATS = ("obs", "reward", "cost")


class Episode(NamedTuple):
    """What a learner sees of one world: the start [1] and each step [T]; every field with a leading time axis."""

    obs: np.ndarray
    reward: np.ndarray
    cost: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    steps: np.ndarray


def check(env: Any) -> list[Finding]:
    """The findings of the first stage that has fatal ones, and the notes up to there; [] if all is well."""
    findings: list[Finding] = []
    for stage in (_contract, task_faults, _shapes, vary_faults, _episodes, _repeats, left_out_by_mjx):
        findings += stage(env)
        if any(finding.fatal for finding in findings):
            break
    return findings


def require(env: Environment) -> None:
    """Raises ContractError with the first fatal finding."""
    for finding in check(env):
        if finding.fatal:
            raise ContractError(f"{finding}")


def _contract(env: Any) -> Iterator[Finding]:
    try:
        faults = [Finding(*fault) for fault in getattr(env, "faults", ())]
    except PhysicsError as error:
        faults = [Finding("physics", f"{error}")]
    if faults:
        yield from faults
        return
    for name in MEMBERS:
        try:
            getattr(env, name)
        except AttributeError as error:
            yield Finding(
                "missing-member", f"{type(env).__name__} has no {name!r} ({error}); see metacpo.envs.Environment"
            )
            return
        except ContractError as error:
            yield Finding("raises", str(error).splitlines()[0])
            return
    yield from declared_faults(env)
    for name, text in getattr(env, "notes", ()):
        yield Finding(name, text, fatal=False)


def _shapes(env: Environment) -> Iterator[Finding]:
    """What reset and step return, from their traces alone."""
    task, key = env.tasks.make({}), jax.random.key(0)
    try:
        start = jax.eval_shape(env.reset, task, key)
        after = jax.eval_shape(env.step, task, start, jax.ShapeDtypeStruct((env.action_size,), jnp.float32))
    except jax.errors.JAXTypeError as error:
        first = str(error).splitlines()[0]
        yield Finding(
            "not-traceable", f"JAX cannot compile it: {first} Take jnp instead of np, jnp.where instead of if"
        )
        return
    except Exception as error:  # the user's code
        yield Finding("raises", f"{type(error).__name__}: {' '.join(str(error).split())}")
        return
    m = len(env.cost_names)
    wanted = {
        "obs": ((env.observation_size,), "float32"),
        "reward": ((), "float32"),
        "cost": ((m,), "float32"),
        "terminated": ((), "bool"),
        "truncated": ((), "bool"),
        "steps": ((), "int32"),
    }
    for function, state in (("reset", start), ("step", after)):
        if not isinstance(state, State):
            yield Finding("no-state", f"{function} returns {type(state).__name__}, wanted metacpo.envs.State")
            return
        for name, (shape, dtype) in wanted.items():
            value = getattr(state, name)
            if value.shape != shape:
                yield Finding(f"{name}-shape", f"{function} gives {name} {value.shape}, wanted {shape}")
            elif value.dtype != dtype:
                yield Finding(f"{name}-dtype", f"{function} gives {name} as {value.dtype}, wanted {dtype}")
    yield from _position(env, start)
    if jax.tree.structure(start) != jax.tree.structure(after) or not _same_avals(start.world, after.world):
        yield Finding("world-changes", "the world after a step has other shapes or types than after a reset")


def _position(env: Any, start: State) -> Iterator[Finding]:
    """Of `position`, which an environment need not have."""
    if not hasattr(env, "position"):
        return
    try:
        place = jax.eval_shape(env.position, start)
    except Exception as error:  # the user's code
        yield Finding("raises", f"position: {type(error).__name__}: {' '.join(str(error).split())}")
        return
    if getattr(place, "shape", None) != (2,):
        yield Finding("position-shape", f"position gives {place}, wanted shape (2,); without a position is fine too")


def _same_avals(a: Any, b: Any) -> bool:
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)


def _episodes(env: Environment) -> Iterator[Finding]:
    """Whole episodes under random actions, on the reference task and on one of each split."""
    T = env.episode_length
    run = _player(env)
    for split, task in _few_tasks(env):
        seen = run(task, jax.random.key(1))
        over = np.cumsum(seen.terminated | seen.truncated, axis=0)[:-1] > 0  # nobody looks at what follows the end
        lives = np.concatenate([np.ones((1, WORLDS), bool), ~over])
        broken = broken_world(env, np.any(np.isnan(seen.obs), axis=-1) & lives, split)
        if broken is not None:
            yield broken
            return
        for name in FLOATS:
            bad = np.argwhere(~np.isfinite(getattr(seen, name)) & (lives if name == "reward" else lives[..., None]))
            if len(bad):
                where = env.cost_names[bad[0][2]] if name == "cost" else name
                yield Finding(f"nan-{name}", f"{where} is not finite at step {bad[0][0]} of a {split} task")
        yield from _too_large(env, seen, lives, split)
        negative = np.argwhere((seen.cost < 0) & lives[..., None])
        if len(negative):
            name = env.cost_names[negative[0][2]]
            yield Finding("negative-cost", f"{name} goes down to {seen.cost.min():g} ({split}); a cost is 0 or more")
        elif cost_kind(env) == "indicator" and np.any((seen.cost > 0) & (seen.cost != 1) & lives[..., None]):
            yield Finding("cost-kind", f"cost_kind is 'indicator', but a cost is {seen.cost.max():g} ({split})")
        if np.any(seen.cost[0] != 0) or np.any(seen.reward[0] != 0):
            yield Finding("reset-pays", "reward and cost belong to steps; after a reset both are 0")
        if np.any((seen.steps != np.arange(T + 1)[:, None]) & lives):
            yield Finding("steps", f"State.steps must count 0 to {T}; it goes to {seen.steps[-1].tolist()}")
        yield from _ends(seen, T)


def _too_large(env: Environment, seen: Episode, lives: np.ndarray, split: str) -> Iterator[Finding]:
    """Numbers that are finite, but not their squares, or not those of what they add up to in an episode."""
    with np.errstate(over="ignore", invalid="ignore"):
        sums = {"reward": np.where(lives, seen.reward, 0).sum(axis=0)}
        sums |= {name: np.where(lives, seen.cost[..., j], 0).sum(axis=0) for j, name in enumerate(env.cost_names)}
    sizes = {f"{name} adds up to": np.abs(x).max() for name, x in sums.items()}
    sizes |= {f"obs[{i}] goes to": np.abs(seen.obs[..., i][lives]).max() for i in range(seen.obs.shape[-1])}
    for words, size in sizes.items():
        if size > LARGEST and all(np.all(np.isfinite(getattr(seen, name))) for name in FLOATS):
            text = f"{words} {size:.3g} ({split}), whose square is more than float32 holds; scale it to about 1"
            yield Finding("too-large", text)


def _ends(seen: Episode, T: int) -> Iterator[Finding]:
    """Termination, truncation and time, mixed up."""
    if np.any(seen.terminated[0] | seen.truncated[0]):
        yield Finding("ends-at-reset", "terminated or truncated after a reset")
        return
    ended = seen.terminated.any(axis=0)
    if np.any(seen.truncated[:T]):
        step = int(np.argwhere(seen.truncated[:T])[0][0])
        text = (
            f"truncated at step {step} of {T}; fine for a limit in time or space, but the end of a task is `terminated`"
        )
        yield Finding("truncated-early", text, fatal=False)
    if np.any(~seen.truncated[T] & ~ended):
        yield Finding("never-truncated", f"neither truncated nor terminated after episode_length = {T} steps")
    on_time = seen.terminated[T] & ~seen.terminated[:T].any(axis=0)
    if T > 1 and np.all(on_time):
        yield Finding("timeout-terminates", f"terminated at step {T}, never before: the end of the time is `truncated`")


def _repeats(env: Environment) -> Iterator[Finding]:
    """The same key, traced twice; and one parameter at a time."""
    task, key = env.tasks.make({}), jax.random.key(2)
    once, again = (_player(env)(task, key) for _ in range(2))  # traced anew: np.random in it would draw again
    for name in FLOATS:
        if not np.array_equal(getattr(once, name), getattr(again, name)):
            draws = getattr(env, "draws", "jax.random")
            yield Finding(
                "not-deterministic", f"{name} differs when the same key is used twice; draw from {draws} only"
            )
            return
    shifted, run = env.tasks.sample(jax.random.key(3), "shifted"), _player(env)
    for name in task.params:
        other = replace(task, params=task.params | {name: shifted.params[name]})
        if float(task.params[name]) != float(shifted.params[name]):
            seen = run(other, key)
            if all(np.array_equal(getattr(once, field), getattr(seen, field)) for field in FLOATS):
                text = f"nothing of {WORLDS} random episodes depends on {name!r}; fine if they just do not get there"
                yield Finding("unused-parameter", text, fatal=False)


def _few_tasks(env: Environment) -> Iterator[tuple[str, Task]]:
    yield "reference", env.tasks.make({})
    for split in ("train", "shifted"):
        yield split, env.tasks.sample(jax.random.key(0), split)


def _player(env: Environment) -> Callable[[Task, Key[Array, ""]], Episode]:
    """(task, key) -> what WORLDS worlds show, [T + 1, WORLDS, ...], under actions uniform in [-1, 1]."""

    def seen(state: State) -> Episode:
        return Episode(*(getattr(state, name) for name in Episode._fields))

    @jax.jit
    def play(task: Task, key: Key[Array, ""]):
        reset_key, action_key = jax.random.split(key)
        start = jax.vmap(env.reset, in_axes=(None, 0))(task, jax.random.split(reset_key, WORLDS))
        shape = (env.episode_length, WORLDS, env.action_size)
        actions = jax.random.uniform(action_key, shape, jnp.float32, minval=-1.0, maxval=1.0)

        def step(state: State, action: Array):
            state = jax.vmap(env.step, in_axes=(None, 0, 0))(task, state, action)
            return state, seen(state)

        return jax.tree.map(
            lambda a, b: jnp.concatenate([a[None], b]), seen(start), jax.lax.scan(step, start, actions)[1]
        )

    return lambda task, key: jax.tree.map(np.asarray, play(task, key))
