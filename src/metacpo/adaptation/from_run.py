"""From a run folder to a policy: the meta-policy, or the one adapted to a task."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from metacpo.adaptation.evaluate import evaluate
from metacpo.adaptation.outcomes import Row
from metacpo.config.limits import CostLimit, limits
from metacpo.config.reading import ConfigError
from metacpo.config.schema import Config
from metacpo.config.sections import AdaptationSettings
from metacpo.policies import TrainedPolicy
from metacpo.training.runs import open_run


def adaptation_settings(
    config: Config,
    costs: tuple[str, ...],
    seed: int,
    cost_limit: CostLimit | None = None,
    steps: int | None = None,
    tasks: int | None = None,
) -> AdaptationSettings:
    """A run's own settings of an adaptation with what is given instead, all of it checked as a config's is.

    costs: the names of its constraints.
    """
    usual, limit = config.adaptation, config.cost_limit if cost_limit is None else cost_limit
    steps, tasks = (usual.steps if steps is None else steps), (usual.tasks if tasks is None else tasks)
    settings = replace(usual, steps=steps, tasks=tasks)
    checked = replace(config, adaptation=settings, cost_limit=limit, seed=seed)
    limits(checked.cost_limit, costs)
    return settings


@dataclass(frozen=True)
class AdaptedPolicy:
    """A policy after adaptation to one task, and what it earned and cost after 0..k updates."""

    policy: TrainedPolicy
    curve: tuple[Row, ...]


def adapt(
    run_dir: Path | str,
    task: Mapping[str, object] | None = None,
    split: str | None = None,
    steps: int | None = None,
    cost_limit: CostLimit | None = None,
    seed: int = 0,
) -> AdaptedPolicy:
    """Adapt a trained run to one task: given by parameters (e.g. {"radius": 1.3}), or drawn from `split`, held-out if
    none is given.

    `steps` and `cost_limit` (one for all constraints, or one for each) are the run's own where they are not given.
    Raises ConfigError or TaskError, whose one line names the field, for what is not allowed.
    """
    if task is not None and split is not None:
        raise ConfigError(f"split: {split!r} beside one given task; allowed: one of the two")
    run = open_run(run_dir)
    wanted = None if task is None else run.setup.tasks.make(task)
    settings = adaptation_settings(run.config, run.setup.env.cost_names, seed, cost_limit, steps, tasks=1)
    evaluation = evaluate(run.setup, run.state, settings, (split or "held-out",), seed, wanted, cost_limit)
    phi = evaluation.splits[0].adaptation.phi[0]
    return AdaptedPolicy(TrainedPolicy(run.setup.policy, phi, run.state.normaliser), tuple(evaluation.rows))


def load_policy(run_dir: Path | str) -> TrainedPolicy:
    """The meta-policy of a run at its newest checkpoint, normaliser inside."""
    run = open_run(run_dir)
    return TrainedPolicy(run.setup.policy, run.state.theta, run.state.normaliser)
