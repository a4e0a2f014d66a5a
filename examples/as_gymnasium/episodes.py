"""Our environments as Gymnasium's: sixteen worlds under a hand-written controller, and what the walls cost it.

python examples/as_gymnasium/episodes.py [metacpo/PointCircle-v0]
"""

import sys

import gymnasium
import numpy as np

import metacpo  # noqa: F401  (registers the environments)

WORLDS = 16


def controller(obs: np.ndarray) -> np.ndarray:
    """Forward, turning until the centre is on the left: actions (force, turning speed) [N, 2] of observations."""
    lidar = obs[:, 12:28]  # 16 bins round the robot, counter-clockwise from straight ahead
    angle = (lidar.argmax(axis=1) + 0.5) * 2 * np.pi / 16
    turn = np.clip(np.sin(angle - np.pi / 2), -1, 1)
    return np.stack([np.full(len(obs), 0.4), turn], axis=1).astype(np.float32)


def main(name: str = "metacpo/PointCircle-v0") -> tuple[float, float, float]:
    """(return, cost, limit) of an episode of 500 steps, means over the worlds, each of which draws its own task."""
    envs = gymnasium.make_vec(name, num_envs=WORLDS, split="train")
    obs, info = envs.reset(seed=0)
    earned, paid, limit = np.zeros(WORLDS), np.zeros(WORLDS), float(np.mean(info["cost_limit"]))
    truncated = np.zeros(WORLDS, bool)
    while not truncated.all():
        obs, reward, _, truncated, info = envs.step(controller(obs))
        earned += reward
        paid += info["cost"]
    envs.close()
    print(f"{name}: return {earned.mean():.1f}, cost {paid.mean():.1f} (limit {limit:g})")
    return float(earned.mean()), float(paid.mean()), limit


if __name__ == "__main__":
    main(*sys.argv[1:])
