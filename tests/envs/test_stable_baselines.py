"""Stable-Baselines3 trains on our environments and finds the cost; only where it is installed (make venv does not)."""

import gymnasium
import numpy as np
import pytest

import metacpo

pytest.importorskip("stable_baselines3")

STEPS = 4096


# Stable-Baselines3 and PyTorch warn of their own affairs.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_ppo_trains_and_reads_the_cost():
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.env_util import make_vec_env

    assert metacpo.__name__  # the import that registers
    torch.set_num_threads(1)  # several wait for each other where other processes run: ten times as long
    costs: list[float] = []

    class CostReader(BaseCallback):
        def _on_step(self) -> bool:
            for info in self.locals["infos"]:
                assert info["cost"] == info["cost_walls"] and info["cost_limit"] == 25.0
                costs.append(info["cost"])
            return True

    envs = make_vec_env("metacpo/PointCircle-v0", n_envs=2, seed=0, env_kwargs={"split": "train"})
    model = PPO("MlpPolicy", envs, n_steps=512, batch_size=256, seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in model.policy.parameters()]
    model.learn(STEPS, callback=CostReader())
    assert len(costs) == STEPS and set(costs) <= {0.0, 1.0} and len(model.ep_info_buffer) == 8
    assert all(episode["l"] == 500 for episode in model.ep_info_buffer)
    moved = [
        np.abs((new - old).detach().numpy()).max() for new, old in zip(model.policy.parameters(), before, strict=True)
    ]
    assert np.all(np.isfinite(moved)) and max(moved) > 0
    action, _ = model.predict(envs.reset())
    assert gymnasium.make("metacpo/PointCircle-v0").action_space.contains(action[0])
