"""Env steps/s of our environments, of bare MuJoCo and of Safety-Gymnasium, on all cores, in one run.

    python benchmarks/envs.py [--worlds 128] [--rounds 5] [--out benchmarks/envs.csv]
                              [--reference-python REF/bin/python --reference-source REF/src]

- ours: the compiled rollout with a random policy (a fresh MLP) in the loop, `worlds` worlds at once, resets included;
- bare: `mujoco.rollout` on the same model with one call per environment step, and no environment at all;
- Safety-Gymnasium 1.0.0: its vector environment (one process per core) under random actions, on the same tasks made of
  its parts (`parity.py` says how to install it), once without a reset and once with the one that ends every episode.
  Left out if no interpreter is given.

A round is one whole episode of every world. The rounds alternate, so that a machine that drifts favours nobody; ratios
are medians of the paired rounds.
"""

import argparse
import csv
import os
import statistics
import subprocess
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import mujoco
import numpy as np

from metacpo.envs import make
from metacpo.envs.physics import MujocoC
from metacpo.envs.physics.pools import Pool
from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout

TASKS = {
    "point-circle": "circle('Point', 1.25, 0.938)",
    "car-circle-hazard": "circle('Car', 1.25, 0.812, hazards=5)",
    "point-button-hazard": "button(1.9, 4, 7)",
}
# Runs in the other interpreter: its vector environment as upstream makes it, timed without the start of its processes.
REFERENCE = """
import sys, time, pathlib
sys.path.insert(0, {benchmarks!r})
import parity
import numpy as np
parity.load(pathlib.Path({source!r}))
from safety_gymnasium.vector.async_vector_env import SafetyAsyncVectorEnv
env = SafetyAsyncVectorEnv([lambda: parity.{task} for _ in range({processes})])
env.reset(seed=0)
rng = np.random.default_rng(0)
begin = time.perf_counter()
for step in range({steps}):
    _, _, _, terminated, truncated, _ = env.step(rng.uniform(-1, 1, ({processes}, 2)))
    ends = (terminated | truncated).all()
    if step == {steps} - 2:
        stepping = time.perf_counter() - begin
assert ends, "the last step ends the episode"
whole = time.perf_counter() - begin
print("STEPS/S", ({steps} - 1) * {processes} / stepping, {steps} * {processes} / whole, flush=True)
env.close(terminate=True)
"""


@dataclass(frozen=True)
class Size:
    """How much one round measures."""

    worlds: int
    rounds: int


def ours(name: str, worlds: int):
    """Steps/s of one compiled rollout of whole episodes, as a function of the round."""
    env = make(name)
    policy, normaliser = GaussianPolicy(env.observation_size, 2, (32, 16), 0.6), Normaliser.init(env.observation_size)
    phi, task = policy.init(jax.random.key(0)), env.tasks.make({})

    def roll(key):
        return rollout(env, policy, phi, normaliser, task, key, worlds).reward

    compiled = jax.jit(roll).lower(jax.random.key(0)).compile()

    def measure(index: int) -> float:
        begin = time.perf_counter()
        jax.block_until_ready(compiled(jax.random.key(index)))
        return worlds * env.episode_length / (time.perf_counter() - begin)

    return measure, env


@cache
def pool_of(physics: MujocoC) -> Pool:
    """Threads of its own for the bare engine, as many as our environments have."""
    return Pool(physics.model, os.cpu_count() or 1)


def bare(physics: MujocoC, start: np.ndarray, held: np.ndarray, steps: int) -> float:
    """Steps/s of `mujoco.rollout` from the states `start` [N, s], random controls beside what is `held` [N, 3 p]."""
    rng = np.random.default_rng(0)
    worlds, state, n = len(start), start, physics.substeps
    pool = pool_of(physics)
    begin = time.perf_counter()
    for _ in range(steps):
        control = np.concatenate([rng.uniform(-1, 1, (worlds, physics.control_size)), held], axis=1)
        states = np.empty((worlds, n, physics.state_size))
        sensors = np.empty((worlds, n, physics.sensor_size))
        pool.threads.rollout(
            [physics.model] * worlds,
            pool.data,
            state,
            np.repeat(control[:, None], n, axis=1),
            control_spec=pool.given,
            skip_checks=True,
            nstep=n,
            state=states,
            sensordata=sensors,
        )
        state = np.ascontiguousarray(states[:, -1])
    return worlds * steps / (time.perf_counter() - begin)


def starts(env, worlds: int) -> tuple[np.ndarray, np.ndarray]:
    """States [N, s] after a reset and what the physics holds beside the controls: the places of the mocap bodies."""
    task = env.tasks.make({})
    world = jax.jit(jax.vmap(env.reset, (None, 0)))(task, jax.random.split(jax.random.key(0), worlds)).world
    physics = world.physics if hasattr(world, "physics") else world
    held = np.zeros((worlds, env.physics.mocaps, 3))
    if env.physics.mocaps:
        there = np.arange(env.physics.mocaps)[:, None] < float(task.params["buttons"])
        held[..., :2], held[..., 2:] = np.where(there, world.buttons, 0.0), np.where(there, 0.1, -9.0)
    return np.ascontiguousarray(physics.bits).view(np.float64), held.reshape(worlds, -1)


def reference(python: Path, source: Path, task: str, steps: int) -> tuple[float, float]:
    """Steps/s of upstream's vector environment without and with its reset, measured in its own interpreter."""
    code = REFERENCE.format(
        benchmarks=str(Path(__file__).parent.resolve()),
        source=str(source.resolve()),
        task=task,
        processes=os.cpu_count() or 1,
        steps=steps,
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    stepping, whole = done.stdout.split("STEPS/S")[1].split()[:2]
    return float(stepping), float(whole)


def compare(name: str, size: Size, python: Path | None, source: Path | None) -> dict[str, float]:
    """Medians of steps/s of the contenders on one family, and ratios of ours to the others."""
    measure, env = ours(name, size.worlds)
    begin, held = starts(env, size.worlds)
    rates: dict[str, list[float]] = {"ours": [], "bare MuJoCo": []}
    for index in range(size.rounds):
        rates["ours"].append(measure(index))
        rates["bare MuJoCo"].append(bare(env.physics, begin, held, env.episode_length))
        if python and source:
            stepping, whole = reference(python, source, TASKS[name], env.episode_length)
            rates.setdefault("Safety-Gymnasium", []).append(whole)
            rates.setdefault("Safety-Gymnasium without resets", []).append(stepping)
    result = {f"{who} (env steps/s)": statistics.median(values) for who, values in rates.items()}
    for who in list(rates)[1:]:
        ratios = [a / b for a, b in zip(rates["ours"], rates[who], strict=True)]
        result[f"ours ÷ {who}"] = statistics.median(ratios)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--worlds", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--reference-python", type=Path, help="interpreter that has what Safety-Gymnasium needs")
    parser.add_argument("--reference-source", type=Path, help="folder with Safety-Gymnasium's unpacked wheel")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/envs.csv"))
    args = parser.parse_args()
    rows = [("environment", "figure", "value")]
    about = f"MuJoCo {mujoco.__version__}, {os.cpu_count()} cores, {args.worlds} worlds, {args.rounds} rounds"
    print(about)
    for name in TASKS:
        size = Size(args.worlds, args.rounds)
        figures = compare(name, size, args.reference_python, args.reference_source)
        for figure, value in figures.items():
            print(f"{name:22s} {figure:34s} {value:12.4g}", flush=True)
            rows.append((name, figure, f"{value:.4g}"))
    with args.out.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([*rows, ("all", "machine", about)])


if __name__ == "__main__":
    main()
