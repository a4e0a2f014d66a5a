"""What the command line says of environments of the user's own: before any training, one line, exit code 2."""

from pathlib import Path

import pytest

from metacpo.cli import main as cli

CRANE = (Path(__file__).parents[2] / "examples" / "own_robot").resolve()
SETTINGS = 'env = "own.py:env"\niterations = 1\ncost_limit = 10.0\n[meta]\ntasks = 1\nsteps = 1\nepisodes = 2\n'
GYM = """
import gymnasium, numpy as np
from metacpo.envs import TaskDistribution, from_gymnasium
class Costless(gymnasium.Env):
    observation_space = action_space = gymnasium.spaces.Box(-1, 1, (1,))
    def reset(self, seed=None, options=None): return np.zeros(1, np.float32), {}
    def step(self, action): return np.zeros(1, np.float32), 0.0, False, False, {}
env = from_gymnasium(lambda params: Costless(), TaskDistribution({}, {}, (1.0,)), episode_length=5)
"""
EXPLODES = GYM.replace(
    "def step(self, action): return", "def step(self, action): raise RuntimeError('exploded'); return"
)


def changed(mjcf="crane.xml", **functions):
    """The crane, with another MJCF or other costs."""
    text = (CRANE / "crane.py").read_text().replace('"crane.xml"', f'"{mjcf}"')
    for name, body in functions.items():
        text += f"\nobject.__setattr__(env, 'costs', {{'{name}': lambda step: {body}}})\n"
        text += "object.__setattr__(env, 'tasks', env.tasks.with_cost_limit((10.0,)))\n"
    return text


@pytest.fixture
def own(tmp_path, capsys):
    """(source of own.py, options) ↦ the exit code and what stands on stderr; nothing may be left in the run folder."""

    def train(source, *options):
        (tmp_path / "own.py").write_text(source)
        (tmp_path / "crane.xml").write_text((CRANE / "crane.xml").read_text())
        (tmp_path / "torn.xml").write_text("<mujoco><worldbody><body></worldbody></mujoco>")
        (tmp_path / "own.toml").write_text(SETTINGS)
        code = cli.main(["train", str(tmp_path / "own.toml"), "--run-dir", str(tmp_path / "run"), *options])
        assert not (tmp_path / "run").exists()
        return code, capsys.readouterr().err

    return train


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (changed(mjcf="torn.xml"), "torn.xml does not compile: "),
        (changed(mjcf="gone.xml"), "gone.xml does not compile: "),
        (changed(speed="step.after.qvel"), "cost 'speed': has shape (2,), wanted one number"),
        (changed(speed="jnp.sqrt(-1.0 - step.after.qvel[0]**2)"), "nan-cost: speed is not finite at step 1"),
        (changed(speed="step.after.sensors['sped'][0]"), "raises: KeyError: 'sped'"),
        (GYM, "Costless: info has no 'cost' after a step; add info['cost'] in the environment"),
        (EXPLODES, "own.py': Costless: step failed with RuntimeError: exploded"),
        ("env = 3\n", "own.py:env is no Environment: int lacks action_size"),
        ("environment = 3\n", "has no attribute 'env'"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_training(own, source, says):
    code, err = own(source)
    assert code == 2 and says in err
    assert err.startswith("metacpo: ") and err.count("\n") == 1


def test_an_engine_that_is_not_there(own):
    code, err = own(changed(), "--physics", "warp")
    assert code == 2 and "'warp'" in err and err.count("\n") == 1


def test_check_env_ends_with_one_when_it_finds_a_fault(tmp_path, capsys):
    (tmp_path / "own.py").write_text(changed(speed="-1.0 + 0 * step.after.qvel[0]"))
    (tmp_path / "crane.xml").write_text((CRANE / "crane.xml").read_text())
    assert cli.main(["check-env", f"{tmp_path}/own.py:env"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("FAULT  negative-cost: speed goes down to -1") and out[-1].endswith("not ready")
