"""Meta-learned policies that a handful of constrained updates make good and safe on a new task.

The public names are imported when they are first used: `metacpo --help` should not wait for JAX.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from metacpo.gymnasium_ids import register as _register_at_gymnasium

if TYPE_CHECKING:
    from metacpo import solver as solver
    from metacpo.adaptation.from_run import adapt as adapt
    from metacpo.adaptation.from_run import load_policy as load_policy
    from metacpo.algorithms.registry import register_algorithm as register_algorithm
    from metacpo.config.schema import Config as Config
    from metacpo.envs import make as make
    from metacpo.envs import register_env as register_env
    from metacpo.training.loop import resume as resume
    from metacpo.training.loop import train as train

    __version__: str

_HOME = {
    "Config": "metacpo.config.schema",
    "adapt": "metacpo.adaptation.from_run",
    "load_policy": "metacpo.adaptation.from_run",
    "make": "metacpo.envs",
    "register_algorithm": "metacpo.algorithms.registry",
    "register_env": "metacpo.envs",
    "resume": "metacpo.training.loop",
    "train": "metacpo.training.loop",
}

__all__ = [
    "Config",
    "__version__",
    "adapt",
    "load_policy",
    "make",
    "register_algorithm",
    "register_env",
    "resume",
    "solver",
    "train",
]


_register_at_gymnasium()  # gymnasium.make("metacpo/PointCircle-v0") works after `import metacpo`


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name == "solver":
        return import_module("metacpo.solver")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'metacpo' has no attribute {name!r}")


def _version() -> str:
    """The installed version; a source tree that is only on the path has none."""
    try:
        return version("metacpo")
    except PackageNotFoundError:
        return "unknown"
