"""A run and its folder: where its settings, its checkpoints and its numbers are."""

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from metacpo.config.schema import Config, ConfigError
from metacpo.run_folder import LOCK, RunError, RunExistsError, complain, find_unsafe_path, part_of
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


def open_run(run_dir: Path | str, physics: str | None = None, devices: int = 1) -> Run:
    """The run in a folder at its newest whole checkpoint, on another engine if `physics` names one, to go on with on
    so many devices. Only reads.

    Where config.toml is not what the checkpoint was trained under, one line on stderr says in which settings.
    Raises RunError or CheckpointError, naming the file. An environment, an algorithm or a network of the user's own is
    imported from where it was trained, but never from within the run folder: whoever sends a run must not send code
    with it.
    """
    run_dir = Path(run_dir)
    stated = saved_config(run_dir)
    config = stated if physics is None else replace(stated, physics=physics)
    setup = build(config, of_a_run=True, devices=devices)
    state = checkpoint.restore(run_dir, init_state(setup, config.seed))
    _say_what_was_edited(run_dir, stated, int(state.iteration))
    return Run(run_dir, config, setup, state)


def _say_what_was_edited(run_dir: Path, stated: Config, iteration: int) -> None:
    path = run_dir / CONFIG
    try:
        trained = checkpoint.settings(run_dir, iteration)
    except ConfigError as error:  # an environment that was renamed since, settings of another version
        complain(f"{error}; whether {path} was edited since is not known")
        return
    if trained is None:
        return
    now, then = _by_name(stated), _by_name(trained)
    if edited := [f"{name} = {now[name]!r} (then {then[name]!r})" for name in now if now[name] != then[name]]:
        complain(f"{path}: is not what the checkpoint of iteration {iteration} was trained under: {', '.join(edited)}")


def _by_name(config: Config) -> dict[str, object]:
    """Every setting by its dotted name."""
    flat: dict[str, object] = {}
    for name, value in asdict(config).items():
        flat |= {f"{name}.{key}": x for key, x in value.items()} if isinstance(value, dict) else {name: value}
    return flat


def refuse_to_overwrite(run_dir: Path) -> None:
    """A lock alone, or half a config, is what a process left that was killed before there was a run."""
    nothing = {LOCK, part_of(run_dir / CONFIG).name}
    if run_dir.exists() and (not run_dir.is_dir() or {path.name for path in run_dir.iterdir()} - nothing):
        raise RunExistsError(f"run-dir: {str(run_dir)!r} exists; allowed: a new or an empty folder")


def saved_config(run_dir: Path) -> Config:
    """The settings of the run in a folder, whose environment, algorithm and network may be imported."""
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
    _refuse_its_code(run_dir, "network", config.network)
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
