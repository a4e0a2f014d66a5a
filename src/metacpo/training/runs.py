"""A run and its folder: where its settings, its checkpoints and its numbers are."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from metacpo.config.schema import Config, ConfigError
from metacpo.run_folder import LOCK, RunError, RunExistsError, find_unsafe_path
from metacpo.runtime.references import source_path
from metacpo.training import checkpoint
from metacpo.training.budget import Budget, plan
from metacpo.training.metrics import steps_used
from metacpo.training.setup import TrainingSetup, build
from metacpo.training.state import TrainState, init_state

CONFIG = "config.toml"


@dataclass(frozen=True)
class Run:
    """A run folder with what it holds, at the newest checkpoint."""

    path: Path
    config: Config
    setup: TrainingSetup
    state: TrainState
    compilations: dict[str, int] = field(default_factory=dict)  # by function, of this session's loop

    @property
    def budget(self) -> Budget:
        """What its environment steps pay for. Raises ConfigError where that is nothing."""
        return plan(self.config, self.setup)

    @property
    def finished(self) -> bool:
        """Whether all meta-iterations are done; if not, the run was interrupted."""
        return int(self.state.iteration) >= self.budget.iterations

    @property
    def env_steps(self) -> int | None:
        """Environment steps that the training has used; None where metrics.csv does not tell."""
        iteration = int(self.state.iteration)
        return steps_used(self.path, iteration) if iteration else 0


def open_run(run_dir: Path | str, physics: str | None = None) -> Run:
    """The run in a folder at its newest whole checkpoint, on another engine if `physics` names one. Only reads.

    Raises RunError or CheckpointError, naming the file. An environment or an algorithm of the user's own is imported
    from where it was trained, but never from within the run folder: whoever sends a run must not send code with it.
    """
    run_dir = Path(run_dir)
    config = saved_config(run_dir)
    if physics is not None:
        config = replace(config, physics=physics)
    setup = build(config, of_a_run=True)
    return Run(run_dir, config, setup, checkpoint.restore(run_dir, init_state(setup, config.seed)))


def refuse_to_overwrite(run_dir: Path) -> None:
    """A lock alone, or half a config, is what a process left that was killed before there was a run."""
    nothing = {LOCK, f"{CONFIG}.part"}
    if run_dir.exists() and (not run_dir.is_dir() or {path.name for path in run_dir.iterdir()} - nothing):
        raise RunExistsError(f"run-dir: {str(run_dir)!r} exists; allowed: a new or an empty folder")


def saved_config(run_dir: Path) -> Config:
    """The settings of the run in a folder, whose environment and algorithm may be imported."""
    if not run_dir.is_dir():
        raise RunError(f"{run_dir}: no such run folder")
    if wrong := find_unsafe_path(run_dir):
        raise RunError(wrong)
    try:
        config = Config.saved(run_dir / CONFIG)
    except ConfigError as error:
        where = "" if str(run_dir) in str(error) else f"{run_dir / CONFIG}: "
        raise RunError(f"{where}{error}") from error
    _refuse_its_code(run_dir, "env", config.env)
    _refuse_its_code(run_dir, "algorithm", config.algorithm)
    return config


def _refuse_its_code(run_dir: Path, setting: str, reference: str) -> None:
    """Raises RunError for code in the run folder, or in a place that only the folder's own place tells."""
    where = reference.rpartition(":")[0]
    if where.endswith(".py") and not Path(where).is_absolute():  # a training writes where it found the file
        raise RunError(
            f"{run_dir / CONFIG}: {setting}: {where!r} is not an absolute path, which a training would have written"
        )
    code = source_path(reference)
    if code is not None and code.is_relative_to(run_dir.resolve()):
        what = f"{code} lies in the run folder, whose code is not run; move it away"
        raise RunError(f"{run_dir / CONFIG}: {setting}: {what}")
