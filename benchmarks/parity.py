"""Episodes of Safety-Gymnasium 1.0.0, recorded for `tests/envs/test_parity.py`.

    python3 -m venv REF && REF/bin/pip install gymnasium==0.28.1 mujoco==3.17.0 xmltodict pyyaml imageio
    REF/bin/pip download --no-deps safety-gymnasium==1.0.0 -d REF && REF/bin/python -m zipfile -e REF/*.whl REF/src
    REF/bin/python benchmarks/parity.py REF/src [--out tests/envs/reference/mujoco-3.17.0]

The package pins mujoco 2.3.3 and does not import on Python ≥ 3.11. `load` makes it work there with today's MuJoCo, so
that both sides of the comparison run on one engine. It changes nothing that is computed:

- array-valued defaults of dataclasses become default factories, as Python 3.11 wants them;
- packages that only other tasks need (gymnasium_robotics, pygame, glfw) are replaced by empty ones;
- three look-ups in `bases/base_agent.py` take the one number out of the array that newer bindings return.

The tasks are Meta-CPO's variants, made of upstream's parts: other numbers of objects, sizes and places than upstream's
levels have. Each episode is played twice, with and without upstream's default of turning costs into indicators.

A file holds one episode: `qpos` and `qvel` [T + 1] (in our coordinates: a Point's joints are turned and moved to the
world's axes), `action`, `obs`, `reward`, `graded` and `indicator` (costs; columns as our `cost_names`, and the total),
the task's parameters as `task_*`, the places of `hazards` and `buttons`, and `goal` and `timer` [T + 1]. `start` [7] is
the place and the quaternion that upstream writes into the robot's body, from where a Point's joints count.
"""

import argparse
import dataclasses
import importlib.abc
import importlib.machinery
import shutil
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

STEPS = 500
EMPTY = ("gymnasium_robotics", "pygame", "glfw")
PATCHES = {
    "model.sensor(sensor_id).type": "model.sensor(sensor_id).type[0]",
    "model.sensor(sensor_id).objid": "model.sensor(sensor_id).objid[0]",
    "model.jnt(joint_id).type": "model.jnt(joint_id).type[0]",
}


class Empty(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports that succeed and give modules in which every name is a class without content."""

    class Module(types.ModuleType):
        __path__ = ()

        def __getattr__(self, name: str):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.split(".")[0] in EMPTY else None

    def create_module(self, spec):
        return self.Module(spec.name)

    def exec_module(self, module):
        pass


def load(folder: Path):
    """Safety-Gymnasium from the unpacked wheel in `folder`."""
    copy = Path(tempfile.mkdtemp())
    shutil.copytree(folder / "safety_gymnasium", copy / "safety_gymnasium")
    source = copy / "safety_gymnasium" / "bases" / "base_agent.py"
    text = source.read_text(encoding="utf-8")
    for old, new in PATCHES.items():
        assert old in text, old
        text = text.replace(old, new)
    source.write_text(text, encoding="utf-8")
    plain = dataclasses.dataclass

    def dataclass(cls=None, /, **options):
        def made(cls):
            for name, value in list(vars(cls).items()):
                if isinstance(value, np.ndarray):
                    setattr(cls, name, dataclasses.field(default_factory=value.copy))
            return plain(cls, **options)

        return made if cls is None else made(cls)

    dataclasses.dataclass = dataclass
    sys.meta_path.insert(0, Empty())
    sys.path.insert(0, str(copy))
    try:
        import safety_gymnasium
    finally:
        dataclasses.dataclass = plain
    return safety_gymnasium


def single_precision_places() -> None:
    """Upstream puts everything where a float32 can say: a layout then means the same to both."""
    from safety_gymnasium.utils.random_generator import RandomGenerator

    draw = RandomGenerator.draw_placement

    def rounded(self, *args):
        return draw(self, *args).astype(np.float32).astype(np.float64)

    RandomGenerator.draw_placement = rounded


def circle(robot: str, radius: float, wall: float, hazards: int = 0, extent: float = 1.4):
    """Upstream's environment of a Circle task of ours."""
    from safety_gymnasium.assets.geoms import Hazards, Sigwalls
    from safety_gymnasium.tasks.safe_navigation.circle.circle_level0 import CircleLevel0

    class Circle(CircleLevel0):
        def __init__(self, config):
            super().__init__(config)
            self.agent.placements = [(-0.2, -0.2, 0.2, 0.2)]
            self.circle.radius = radius
            self._add_geoms(Sigwalls(num=2, locate_factor=wall, is_constrained=True))
            if hazards:
                self.placements_conf.extents = [-extent, -extent, extent, extent]
                self._add_geoms(Hazards(num=hazards, size=0.12, keepout=0.4, cost=3.0))

    return environment(Circle, robot)


def button(extent: float, buttons: int, hazards: int):
    """Upstream's environment of a Button task of ours."""
    from safety_gymnasium.assets.geoms import Hazards
    from safety_gymnasium.tasks.safe_navigation.button.button_level0 import ButtonLevel0

    class Button(ButtonLevel0):
        def __init__(self, config):
            super().__init__(config)
            self.placements_conf.extents = [-extent, -extent, extent, extent]
            self.buttons.num, self.buttons.keepout, self.buttons.is_constrained = buttons, 0.2, True
            self._add_geoms(Hazards(num=hazards, size=0.2, keepout=0.2, cost=1.0))

    return environment(Button, "Point")


def environment(task: type, robot: str):
    """Upstream's environment for a class of tasks."""
    from safety_gymnasium.builder import Builder

    class Environment(Builder):
        def _get_task(self):
            made = task(config=self.config)
            made.build_observation_space()
            return made

    return Environment("", config={"agent_name": robot})


def controls(rng: np.random.Generator) -> np.ndarray:
    """[T, 2]: random directions held for 20 steps, with noise; some beyond the actuators' range."""
    held = np.repeat(rng.uniform(-1, 1, (STEPS // 20, 2)), 20, axis=0)
    return (held + rng.normal(0, 0.4, held.shape)).astype(np.float32)


def seek(env, rng: np.random.Generator) -> np.ndarray:
    """Towards the goal button, with noise: otherwise hardly anything is ever pressed."""
    offset = env.task.goal.pos - env.task.agent.pos
    ahead, left = offset @ env.task.agent.mat[:, 0], offset @ env.task.agent.mat[:, 1]
    return (np.array([0.3 if ahead > 0 else -0.1, 2 * np.arctan2(left, ahead)]) + rng.normal(0, 0.3, 2)).astype(
        np.float32
    )


def state(env) -> tuple[np.ndarray, np.ndarray]:
    """(qpos, qvel) in our coordinates."""
    data, model = env.task.data, env.task.model
    qpos, qvel = data.qpos.copy(), data.qvel.copy()
    if model.nq == 3:
        body = model.body("agent")
        turn = 2 * np.arctan2(body.quat[3], body.quat[0])
        R = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        qpos = np.append(body.pos[:2] + R @ qpos[:2], turn + qpos[2])
        qvel = np.append(R @ qvel[:2], qvel[2])
    return qpos, qvel


def game(env) -> tuple[int, int]:
    """Number of the goal button and the timer; 0 in tasks without."""
    buttons = getattr(env.task, "buttons", None)
    return (int(buttons.goal_button), int(buttons.timer)) if buttons else (0, 0)


def record(env, seed: int, costs: tuple[str, ...], seeking: bool = False) -> dict[str, np.ndarray]:
    """One episode of STEPS steps."""
    rng = np.random.default_rng(seed)
    plan = controls(rng)
    seen = {name: [] for name in ("qpos", "qvel", "action", "obs", "reward", "cost", "goal", "timer")}

    def note(**values):
        for name, value in values.items():
            seen[name].append(value)

    def note_state(obs):
        (qpos, qvel), (goal, timer) = state(env), game(env)
        note(qpos=qpos, qvel=qvel, goal=goal, timer=timer, obs=obs)

    note_state(env.reset(seed=seed)[0])
    body, layout = env.task.model.body("agent"), env.task.world_info.reset_layout
    start = np.concatenate([body.pos, body.quat])
    places = {
        f"{kind}s": np.array([xy for name, xy in layout.items() if name.startswith(kind)]).reshape(-1, 2)
        for kind in ("button", "hazard")
    }
    for t in range(STEPS):
        action = seek(env, rng) if seeking else plan[t]
        obs, reward, _, terminated, _, info = env.step(action.astype(np.float64))
        assert not terminated
        note(action=action, reward=reward, cost=[float(info.get(f"cost_{name}", 0)) for name in (*costs, "sum")])
        note_state(obs)
    arrays = {name: np.array(value) for name, value in seen.items()}
    for name in ("qpos", "qvel"):
        arrays[name] = np.round(arrays[name] * 2**36) / 2**36  # 1e-11 at most, and a quarter fewer bytes
    small = {"obs": np.float32, "goal": np.int8, "timer": np.int8}
    return (
        {name: value.astype(small.get(name, value.dtype)) for name, value in arrays.items()} | places | {"start": start}
    )


def record_both(env, seed: int, costs: tuple[str, ...], seeking: bool) -> dict[str, np.ndarray]:
    """The episode of `seed`, with its costs in both kinds."""
    assert env.task.cost_conf.constrain_indicator, "upstream's default"
    indicator = record(env, seed, costs, seeking)
    env.task.cost_conf.constrain_indicator = False
    graded = record(env, seed, costs, seeking)
    assert all(np.array_equal(graded[name], indicator[name]) for name in graded if name != "cost")
    cost = graded.pop("cost")
    return graded | {"graded": cost, "indicator": indicator["cost"].astype(np.int8)}


EPISODES = {
    "point-circle": (dict(radius=1.25, wall=0.75), 1, False),
    "car-circle-hazard": (dict(radius=1.25, wall=0.5, hazards=5, extent=1.4), 2, False),
    "point-button-hazard": (dict(extent=1.4, buttons=5, hazards=6), 9, True),
}
UPSTREAM = {"walls": "out_of_boundary", "hazards": "hazards", "buttons": "buttons"}
COSTS = {
    "point-circle": ("walls",),
    "car-circle-hazard": ("walls", "hazards"),
    "point-button-hazard": ("buttons", "hazards"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Record episodes of Safety-Gymnasium 1.0.0.")
    parser.add_argument("folder", type=Path, help="where the wheel was unpacked")
    parser.add_argument("--out", type=Path, default=Path("tests/envs/reference/mujoco-3.17.0"))
    args = parser.parse_args()
    load(args.folder)
    single_precision_places()
    import mujoco

    args.out.mkdir(parents=True, exist_ok=True)
    for name, (params, seed, seeking) in EPISODES.items():
        env = button(**params) if "button" in name else circle(name.split("-")[0].capitalize(), **params)
        episode = record_both(env, seed, tuple(UPSTREAM[cost] for cost in COSTS[name]), seeking)
        path = args.out / f"{name}.npz"
        np.savez_compressed(path, mujoco=mujoco.__version__, **{f"task_{k}": v for k, v in params.items()}, **episode)
        both = zip((*COSTS[name], "total"), episode["graded"].sum(0), episode["indicator"].sum(0), strict=True)
        sums = ", ".join(f"{cost} {graded:.2f} ({steps} steps)" for cost, graded, steps in both)
        presses = np.count_nonzero(episode["timer"] == 10)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB; costs {sums}; presses {presses}")


if __name__ == "__main__":
    main()
