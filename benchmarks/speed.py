"""Speed of the point-circle preset against bare MuJoCo, measured in one run.

    python benchmarks/speed.py [--out benchmarks/speed.csv]

1. Env steps/s of our compiled rollout, policy in the loop, ÷ those of bare `mujoco.rollout` under random controls:
   same model, worlds, threads and substeps. Bare MuJoCo runs twice: with one call per environment step, as any policy
   in the loop needs, and with the whole episode in one call, which no policy can use: the limit of the machine.
2. Share of a meta-iteration that is not spent in physics, at the preset's size.
3. Number of compilations of each function in that run.

The rounds of all contenders alternate, so that a machine that drifts does not favour one; medians are quoted.
"""

import argparse
import csv
import os
import statistics
import time
from functools import cache
from pathlib import Path

import jax
import mujoco
import numpy as np
from rich.console import Console

from metacpo.config.schema import Config
from metacpo.envs.physics import MujocoC
from metacpo.envs.physics.pools import Pool
from metacpo.rollout import rollout
from metacpo.runtime.compilation import count_compilations
from metacpo.training.loop import compile_iteration
from metacpo.training.setup import TrainingSetup, build, warmup
from metacpo.training.state import init_state

ROUNDS = 7


def ours(setup: TrainingSetup, worlds: int, episodes: int):
    """One compiled rollout of `worlds` tasks × `episodes` episodes; call it with a key."""
    state = init_state(setup, 0)
    tasks = setup.tasks.sample_batch(jax.random.key(1), worlds)

    def roll(key):
        def one(task, k):
            return rollout(setup.env, setup.policy, state.theta, state.normaliser, task, k, episodes).reward

        return jax.vmap(one)(tasks, jax.random.split(key, worlds))

    return jax.jit(roll).lower(jax.random.key(0)).compile()


@cache
def pool_of(physics: MujocoC) -> Pool:
    """Threads of its own for the bare engine, as many as our environments have."""
    return Pool(physics.model, os.cpu_count() or 1)


def bare(physics: MujocoC, worlds: int, steps: int, per_call: int) -> float:
    """Seconds of `steps` environment steps under random controls, `per_call` of them in one call."""
    rng = np.random.default_rng(0)
    state = np.zeros((worlds, physics.state_size))
    substeps, pool = physics.substeps * per_call, pool_of(physics)
    begin = time.perf_counter()
    for _ in range(steps // per_call):
        held = np.repeat(rng.uniform(-1, 1, (worlds, per_call, physics.control_size)), physics.substeps, axis=1)
        states = np.empty((worlds, substeps, physics.state_size))
        sensors = np.empty((worlds, substeps, physics.sensor_size))
        pool.threads.rollout(
            [physics.model] * worlds,
            pool.data,
            state,
            held,
            control_spec=mujoco.mjtState.mjSTATE_CTRL.value,
            skip_checks=True,
            nstep=substeps,
            state=states,
            sensordata=sensors,
        )
        state = np.ascontiguousarray(states[:, -1])
    return time.perf_counter() - begin


def rollout_speed(setup: TrainingSetup) -> dict[str, float]:
    """Env steps/s of the three contenders and the two ratios."""
    tasks, episodes = setup.meta.tasks, setup.meta.episodes
    steps, worlds = setup.env.episode_length, setup.meta.tasks * setup.meta.episodes
    roll, physics = ours(setup, tasks, episodes), setup.env.physics  # pyright: ignore[reportAttributeAccessIssue]
    seconds: dict[str, list[float]] = {"ours": [], "bare, a call per step": [], "bare, a call per episode": []}
    for i in range(ROUNDS):
        begin = time.perf_counter()
        jax.block_until_ready(roll(jax.random.key(i)))
        seconds["ours"].append(time.perf_counter() - begin)
        seconds["bare, a call per step"].append(bare(physics, worlds, steps, per_call=1))
        seconds["bare, a call per episode"].append(bare(physics, worlds, steps, per_call=steps))
    result = {f"{name} (env steps/s)": worlds * steps / statistics.median(s) for name, s in seconds.items()}
    for name in ("bare, a call per step", "bare, a call per episode"):
        ratios = [b / o for b, o in zip(seconds[name], seconds["ours"], strict=True)]
        result[f"ours ÷ {name} (median of paired ratios)"] = statistics.median(ratios)
    return result


def learning_share(config: Config, setup: TrainingSetup) -> dict[str, float]:
    """Seconds of both kinds of iteration, the share of them outside physics, and compilations."""
    spent = [0.0]
    advance = Pool.advance

    def timed(pool: Pool, *args):
        begin = time.perf_counter()
        result = advance(pool, *args)
        spent[0] += time.perf_counter() - begin
        return result

    Pool.advance = timed
    result: dict[str, float] = {}
    with count_compilations() as compilations:
        for name, who in (("warm-up", warmup(setup, config.warmup)), ("meta", setup)):
            state = init_state(who, 0)
            begin = time.perf_counter()
            iterate = compile_iteration(who, state, Console(quiet=True))
            result[f"{name} iteration: compilation (s)"] = time.perf_counter() - begin
            totals, shares = [], []
            for _ in range(ROUNDS):
                spent[0], begin = 0.0, time.perf_counter()
                state, metrics = iterate(state)
                jax.block_until_ready(metrics)
                totals.append(time.perf_counter() - begin)
                shares.append(1 - spent[0] / totals[-1])
            result[f"{name} iteration (s)"] = statistics.median(totals)
            result[f"{name} iteration: share outside physics"] = statistics.median(shares)
    for name in ("warmup_iteration", "meta_iteration"):
        result[f"compilations of {name}"] = compilations[name]
    Pool.advance = advance
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as CSV")
    out = parser.parse_args().out
    config = Config.preset("point-circle")
    setup = build(config)
    figures = rollout_speed(setup) | learning_share(config, setup)
    for name, value in figures.items():
        print(f"{name:62s} {value:12.3f}")
    if out:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("figure", "value"), *((n, f"{v:.4g}") for n, v in figures.items())])


if __name__ == "__main__":
    main()
