"""Env steps/s where every task has a robot of its own, against one robot for all, in one run.

    python benchmarks/vary.py [--tasks 20] [--worlds 12] [--steps 250] [--rounds 7] [--out benchmarks/vary.csv]

Both are the compiled steps of the Car on the Circle task under random actions, `tasks` x `worlds` worlds at once. In
one of them `vary` gives each task wheels of other gains and another mass. The rounds alternate, so that a machine that
drifts favours nobody; the ratio is the median of the paired rounds. How long the models of a task take to make is
measured beside it.
"""

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import mujoco
import numpy as np

from metacpo.envs.families.circle import Circle
from metacpo.envs.physics import Vary
from metacpo.envs.robots import Car
from metacpo.envs.tasks import Task

MADE = 200  # models whose making is timed


def wheels(model: mujoco.MjModel, params: dict[str, float]) -> None:
    """Wheels and body of other strength and mass: the radius of the circle serves as the number that differs."""
    model.actuator_gear[:, 0] = params["radius"]  # pyright: ignore[reportAttributeAccessIssue]
    model.body_mass[1:] *= params["radius"]  # pyright: ignore[reportAttributeAccessIssue]
    model.body_inertia[1:] *= params["radius"]  # pyright: ignore[reportAttributeAccessIssue]


def contender(vary: Vary | None, tasks: int, worlds: int, steps: int) -> tuple[Circle, Callable[[int], float]]:
    """The family, and the steps/s of a round as a function of its number."""
    env = Circle(Car(), shifted=(1.5, 2.0), vary=vary)
    batch = env.tasks.sample_batch(jax.random.key(0), tasks)

    def world(task: Task, key):
        start, push = jax.random.split(key)
        actions = jax.random.uniform(push, (steps, 2), jnp.float32, minval=-1.0, maxval=1.0)
        return jax.lax.scan(lambda s, a: (env.step(task, s, a), s.reward), env.reset(task, start), actions)[1]

    rolled = jax.jit(jax.vmap(jax.vmap(world, (None, 0))))
    keys = jax.random.split(jax.random.key(1), (tasks, worlds))
    compiled = rolled.lower(batch, keys).compile()
    jax.block_until_ready(compiled(batch, keys))

    def measure(index: int) -> float:
        keys = jax.random.split(jax.random.key(index), (tasks, worlds))
        begin = time.perf_counter()
        jax.block_until_ready(compiled(batch, keys))
        return tasks * worlds * steps / (time.perf_counter() - begin)

    return env, measure


def making(env: Circle) -> float:
    """Milliseconds in which the models of a task are made, the median."""
    varied, times = env.physics.varied, []  # pyright: ignore[reportAttributeAccessIssue]
    for radius in np.linspace(1.6, 2.0, MADE, dtype=np.float32):
        begin = time.perf_counter()
        varied.of(("radius", "wall"), np.array([[radius, 1.0]], np.float32))
        times.append(1e3 * (time.perf_counter() - begin))
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--worlds", type=int, default=12)
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/vary.csv"))
    args = parser.parse_args()
    (_, fixed), (env, varied) = (contender(vary, args.tasks, args.worlds, args.steps) for vary in (None, wheels))
    rates = [(fixed(index), varied(index)) for index in range(args.rounds)]
    about = (
        f"MuJoCo {mujoco.__version__}, {os.cpu_count()} cores, {args.tasks} tasks x {args.worlds} worlds, "
        f"{args.steps} steps, {args.rounds} rounds"
    )
    rows = [
        ("one robot (env steps/s)", f"{statistics.median(a for a, _ in rates):.4g}"),
        ("a robot for each task (env steps/s)", f"{statistics.median(b for _, b in rates):.4g}"),
        ("ratio (median of paired rounds)", f"{statistics.median(b / a for a, b in rates):.4g}"),
        ("models of a task (ms)", f"{making(env):.4g}"),
        ("machine", about),
    ]
    for figure, value in rows:
        print(f"{figure:40s} {value}", flush=True)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("figure", "value"), *rows])


if __name__ == "__main__":
    main()
