"""The training loop, and what surrounds it: a run folder, one compilation, checkpoints, signals.

    state ← init_state(seed)                         or the newest checkpoint
    repeat: state, metrics ← meta_iteration(state)   the paper's loop body, see iteration.py
            log metrics;  now and then: checkpoint

A signal ends the loop with a checkpoint, after the running meta-iteration if that takes only seconds more.
docs/trust.md says what a run survives.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

import jax
import numpy as np
from jax import Array
from rich.console import Console

from metacpo.config.schema import Config
from metacpo.envs import FAMILIES, make
from metacpo.envs.check import require
from metacpo.run_folder import lock, writing
from metacpo.runtime.compilation import count_compilations, use_compilation_cache
from metacpo.runtime.devices import devices_in_use, on_devices, results_whole
from metacpo.runtime.interrupts import GRACE, Abandoned, run_interruptibly, stop_signals, worker
from metacpo.solver import Case
from metacpo.training import checkpoint, predictions
from metacpo.training.budget import plan, steps_of_one
from metacpo.training.clock import Clock
from metacpo.training.iteration import meta_iteration, warmup_iteration
from metacpo.training.metrics import MetricsWriter
from metacpo.training.progress import Row, ShownCost, progress
from metacpo.training.runs import CONFIG, Run, open_run, refuse_to_overwrite, saved_config
from metacpo.training.setup import TrainingSetup, build, warmup
from metacpo.training.state import TrainState, init_state
from metacpo.training.tags import LIMITED_COST, limit_of, of_constraint
from metacpo.training.watch import Watch, stop_if_not_finite

Iterate = Callable[[TrainState], tuple[TrainState, dict[str, Array]]]


def train(config: Config, run_dir: Path | str, debug_nans: bool = False, devices: int = 1) -> Run:
    """Train from the beginning into a new folder. An interrupt (Ctrl-C, SIGTERM) saves and returns.

    devices: JAX's first ones, which share the tasks (docs/scale.md). Raises DeviceError where they cannot.
    An environment of the user's own is checked first: raises ContractError with what is wrong with it. With debug_nans
    the first number that is not finite ends the run: raises NonFiniteError, and leaves a dump (see watch.py).
    """
    run_dir, config = Path(run_dir), config.located(Path.cwd())
    refuse_to_overwrite(run_dir)
    setup = build(config, devices=devices)
    if config.env not in FAMILIES:  # ours are checked by our tests
        require(make(config.env, config.physics))
    plan(config, setup)  # raises where there is nothing to train
    with writing(run_dir):
        run_dir.mkdir(parents=True, exist_ok=True)
    with lock(run_dir):
        refuse_to_overwrite(run_dir)  # another process may have been quicker
        with writing(run_dir):
            config.save(run_dir / CONFIG)
        return _continue(Run(run_dir, config, setup, init_state(setup, config.seed)), debug_nans)


def resume(run_dir: Path | str, debug_nans: bool = False, devices: int = 1) -> Run:
    """Continue an interrupted run; its metrics are those of a run that nothing interrupted, bit for bit, or on another
    number of devices to rounding.

    A run without a checkpoint starts from the beginning. Raises RunError if another process trains in the folder.
    debug_nans: as in `train`; on a dump's folder it repeats the iteration that the dump is of.
    """
    run_dir = Path(run_dir)
    config = saved_config(run_dir)
    with lock(run_dir):
        if checkpoint.latest(run_dir) is not None:
            return _continue(open_run(run_dir, devices=devices), debug_nans)
        Console().print("interrupted before its first checkpoint: from the beginning", highlight=False)
        setup = build(config, of_a_run=True, devices=devices)
        return _continue(Run(run_dir, config, setup, init_state(setup, config.seed)), debug_nans)


def _continue(run: Run, debug_nans: bool) -> Run:
    """The loop, from the state that the run is in to its last meta-iteration or to a signal."""
    console = Console()
    config, budget, start = run.config, run.budget, int(run.state.iteration)
    state = on_devices(run.state, run.setup.devices)
    if run.finished and start:
        console.print(f"all {start} meta-iterations are done", highlight=False)
        return run
    with (
        MetricsWriter(run.path, logged_tags(run), start) as writer,
        stop_signals() as stop,
        count_compilations() as compilations,
        worker() as pool,
        worker() as compiler,
    ):
        clock = Clock(writer.env_steps, writer.seconds)
        watch = Watch(LIMITED_COST[config.estimation.cost_measure])
        executables: dict[TrainingSetup, Future[Iterate]] = {}
        saved = start or None
        with progress(console) as display, suppress(Abandoned):
            for iteration in range(start + 1, budget.iterations + 1):
                if stop.is_set():
                    break
                setup = setup_at(run, iteration)
                for needed in (setup, setup_at(run, budget.iterations)):  # the second while a warm-up runs
                    if needed not in executables:
                        executables[needed] = compiler.submit(_compiling(needed, state, console))
                iterate = run_interruptibly(pool, stop, executables[setup].result, grace=0.0)  # nothing new to save
                clock.start_lap()
                after, row = run_interruptibly(pool, stop, partial(_iterate, iterate, state), GRACE)
                clock.end_lap(_env_steps(setup, row), steps_of_one(setup))
                row |= _beside_actual(run, iteration, writer.last, row)
                writer.write(iteration, clock.env_steps, clock.seconds, row)
                before, state = state, after
                display.show(_shown(run, iteration, row, clock))
                for line in watch.see(iteration, row):
                    console.print(line, style="yellow", highlight=False, soft_wrap=True)
                if debug_nans:
                    stop_if_not_finite(run.path, config, before, row)
                if iteration % config.checkpoint_every == 0:
                    saved = _save(run, writer, state)
        if saved != int(state.iteration):
            _save(run, writer, state)
    run = Run(run.path, config, run.setup, on_devices(state, 1), dict(compilations))
    _say_how_it_ended(run, console)
    return run


def _compiling(setup: TrainingSetup, state: TrainState, console: Console) -> Callable[[], Iterate]:
    """`compile_iteration` for another thread, to which JAX does not carry the caller's choice of a device."""
    device = jax.config.values["jax_default_device"]

    def work() -> Iterate:
        with jax.default_device(device):
            return compile_iteration(setup, state, console)

    return work


def _iterate(iterate: Iterate, state: TrainState) -> tuple[TrainState, dict[str, np.ndarray]]:
    """One meta-iteration, done when this returns: the next state and the row of metrics.csv."""
    after, metrics = iterate(state)
    return jax.block_until_ready(after), {tag: np.asarray(value) for tag, value in metrics.items()}


def _save(run: Run, writer: MetricsWriter, state: TrainState) -> int:
    """A checkpoint, after the rows that lead to it: a disk must not have it without them."""
    writer.sync()
    checkpoint.save(run.path, on_devices(state, 1), run.config)
    return int(state.iteration)


def setup_at(run: Run, iteration: int) -> TrainingSetup:
    """What learns in this iteration (the first is 1): the warm-up's setup, then the run's."""
    settings = run.config.warmup
    return warmup(run.setup, settings) if iteration <= settings.iterations else run.setup


def logged_tags(run: Run) -> list[str]:
    """Every tag of a row, of a warm-up's or a meta-iteration's: the columns of the run's metrics.csv."""
    tags = set(predictions.TAGS)
    for iteration in (1, run.budget.iterations):
        setup = setup_at(run, iteration)
        with _precision(), devices_in_use(setup.devices):
            jitted = jax.jit(_function(setup), static_argnums=0)
            tags |= set(jitted.eval_shape(setup, run.state)[1])  # JAX keeps the trace for the compilation
    return sorted(tags)


def compile_iteration(setup: TrainingSetup, state: TrainState, console: Console) -> Iterate:
    """`meta_iteration` of this learner as one executable, which cannot be compiled again behind our back.

    JAX keeps what it compiled in a folder for the next process, but not functions that call the host, so it
    keeps this one only where the physics is compiled too.
    """
    use_compilation_cache()
    function = _function(setup)
    console.print(f"compiling {function.__name__} …", highlight=False)
    begin = time.perf_counter()
    with _precision(), devices_in_use(setup.devices):
        jitted = jax.jit(function, static_argnums=0, **results_whole(setup.devices))
        executable = jitted.lower(setup, state).compile()
    console.print(f"compiled in {time.perf_counter() - begin:.1f} s", highlight=False)
    return executable


def _function(setup: TrainingSetup) -> Callable[[TrainingSetup, TrainState], tuple[TrainState, dict[str, Array]]]:
    """The iteration, by the name under which its compilations are counted."""
    return meta_iteration if setup.meta.steps > 0 else warmup_iteration


def _precision() -> AbstractContextManager[None]:
    """Full float32 products: an accelerator's default of fewer bits is not enough for conjugate gradients."""
    return jax.default_matmul_precision("highest")


def _beside_actual(
    run: Run, iteration: int, before: predictions.Row, row: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """What the update of the iteration before predicted, and what came of it in this one."""
    steps_before, steps = (setup_at(run, i).meta.steps for i in (iteration - 1, iteration))
    return predictions.beside_actual(before, steps_before, row, steps, run.config.estimation.cost_measure)


def _env_steps(setup: TrainingSetup, row: dict[str, np.ndarray]) -> int:
    """Steps in all episodes of one meta-iteration: M tasks × (K + 1) rollouts × B episodes × mean length."""
    meta = setup.meta
    return round(meta.tasks * (meta.steps + 1) * meta.episodes * float(row["Metrics/EpLen"]))


def _shown(run: Run, iteration: int, row: dict[str, np.ndarray], clock: Clock) -> Row:
    """What the display shows of a row of metrics.csv."""
    steps_per_second, planned_per_second = clock.pace
    budget = run.budget
    return Row(
        iteration=iteration,
        iterations=budget.iterations,
        env_steps=clock.env_steps,
        planned_steps=budget.steps,
        steps_per_second=steps_per_second,
        episode_return=float(row["Metrics/EpRet"]),
        costs=_shown_costs(run, row),
        kl=float(row["Meta/KL"]),
        case=Case(int(row["Meta/Case"])).name.lower(),
        seconds_left=(budget.steps - budget.steps_until(iteration)) / planned_per_second,
    )


def _shown_costs(run: Run, row: dict[str, np.ndarray]) -> tuple[ShownCost, ...]:
    cost, names = LIMITED_COST[run.config.estimation.cost_measure], run.setup.env.cost_names
    tags = [of_constraint(cost, name) for name in names] if len(names) > 1 else [cost]
    pairs = zip(names, tags, strict=True)
    return tuple(ShownCost(name, float(row[tag]), float(row[limit_of(tag)])) for name, tag in pairs)


def _say_how_it_ended(run: Run, console: Console) -> None:
    counts = ", ".join(f"{name} {count}" for name, count in sorted(run.compilations.items())) or "none"
    console.print(f"compilations: {counts}", highlight=False, soft_wrap=True)
    if not run.finished:
        done = f"interrupted after {int(run.state.iteration)} of {run.budget.iterations} meta-iterations, saved"
        console.print(f"{done}; resume with: metacpo resume {run.path}", highlight=False, soft_wrap=True)
