"""Speed of a Gymnasium environment inside a compiled rollout, against a plain Python loop over the same environments.

    python benchmarks/gymnasium_env.py [--out benchmarks/gymnasium_env.csv]

160 worlds (5 tasks × 32 episodes) of the example's HalfCheetah, whole episodes, resets included. Ours has the policy in
the loop; the plain one steps all worlds in turn, as any policy in the loop needs, under random actions. The rounds of
the two alternate, so that a machine that drifts does not favour one; the ratio is the median of paired ones.
"""

import argparse
import csv
import statistics
import sys
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np

from metacpo.policies import GaussianPolicy, Normaliser
from metacpo.rollout import rollout

sys.path.insert(0, str(Path(__file__).parents[1] / "examples" / "gymnasium_env"))
import cheetah  # pyright: ignore[reportMissingImports]

ROUNDS, TASKS, EPISODES = 7, 5, 32


def ours():
    """One compiled rollout of all worlds; call it with a key."""
    env = cheetah.env
    policy = GaussianPolicy(env.observation_size, env.action_size, (32, 16), 0.6)
    phi, normaliser = policy.init(jax.random.key(0)), Normaliser.init(env.observation_size)
    tasks = env.tasks.sample_batch(jax.random.key(1), TASKS)

    def one(task, key):
        return rollout(env, policy, phi, normaliser, task, key, EPISODES).reward

    roll = jax.jit(lambda key: jax.vmap(one)(tasks, jax.random.split(key, TASKS)))
    jax.block_until_ready(roll(jax.random.key(0)))  # compiles, and builds the environments
    return roll


def plain(envs: list[gymnasium.Env], actions: np.ndarray) -> float:
    """Seconds of one episode of every environment under actions [T, worlds, A]."""
    begin = time.perf_counter()
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    for step in actions:
        for env, action in zip(envs, step, strict=True):
            env.step(action)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=None, help="also write the figures as CSV")
    out = parser.parse_args().out
    roll, worlds = ours(), TASKS * EPISODES
    envs = [cheetah.make({"target_speed": 1.0}) for _ in range(worlds)]
    shape = (cheetah.EPISODE_LENGTH, worlds, cheetah.env.action_size)
    actions = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    seconds: dict[str, list[float]] = {"ours": [], "plain loop": []}
    for i in range(ROUNDS):
        begin = time.perf_counter()
        jax.block_until_ready(roll(jax.random.key(i)))
        seconds["ours"].append(time.perf_counter() - begin)
        seconds["plain loop"].append(plain(envs, actions))
    steps = worlds * cheetah.EPISODE_LENGTH
    figures = {f"{name} (env steps/s)": steps / statistics.median(times) for name, times in seconds.items()}
    ratios = [p / o for p, o in zip(seconds["plain loop"], seconds["ours"], strict=True)]
    figures["ours ÷ plain loop (median of paired ratios)"] = statistics.median(ratios)
    for name, value in figures.items():
        print(f"{name:50s} {value:12.3f}")
    if out:
        with out.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("figure", "value"), *((n, f"{v:.4g}") for n, v in figures.items())])


if __name__ == "__main__":
    main()
