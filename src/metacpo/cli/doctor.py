"""`metacpo doctor`: what a bug report needs, and whether the physics works on this machine."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version

import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from metacpo.envs import make
from metacpo.envs.base import position_of
from metacpo.runtime.compilation import cache_dir
from metacpo.runtime.threads import POOL

PACKAGES = ("metacpo", "jax", "jaxlib", "mujoco", "equinox", "lineax", "orbax-checkpoint", "numpy")
STEPS = 100


def examine(console: Console) -> bool:
    """Print the facts; whether everything works."""
    physics, works = check_physics()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, fact in (facts() | {"physics": physics}).items():
        table.add_row(name, fact)
    console.print(table)
    return works


def facts() -> dict[str, str]:
    """Versions, devices, cores and folders."""
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        **{name: installed(name) for name in PACKAGES},
        "backend": jax.default_backend(),
        "devices": ", ".join(str(device) for device in jax.devices()),
        "cores": str(os.cpu_count()),
        "threads": f"{os.environ.get(POOL, 'one a core')} for XLA ({POOL}), one a core for MuJoCo",
        "cache folder": str(cache_dir()),
    }


def installed(package: str) -> str:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def check_physics() -> tuple[str, bool]:
    """Drive a Point-Circle robot forward for 2 s: it must have moved, and every number must be finite."""
    env = make("point-circle")
    task = env.tasks.make({})
    start = env.reset(task, jax.random.key(0))
    action = jnp.array([1.0, 0.0], jnp.float32)

    def drive(state):
        return jax.lax.scan(lambda s, _: (env.step(task, s, action), s.reward), state, length=STEPS)

    begin = time.perf_counter()
    end, rewards = jax.jit(drive)(start)
    finite = bool(jnp.all(jnp.isfinite(end.obs)) & jnp.all(jnp.isfinite(rewards)))
    distance = float(jnp.linalg.norm(position_of(env, end) - position_of(env, start)))
    seconds = time.perf_counter() - begin
    works = finite and distance > 0.1
    return f"{'works' if works else 'FAILS'}: {STEPS} steps, {distance:.2f} m, {seconds:.1f} s", works
