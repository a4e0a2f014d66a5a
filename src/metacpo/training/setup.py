"""What learns, where and how: built from the settings, the same during a whole run."""

import dataclasses
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from metacpo.algorithms.algorithm import Algorithm, Parts
from metacpo.algorithms.registry import CompositionError, compose, refuse_unread
from metacpo.algorithms.settings import OPTIONAL, MetaSettings
from metacpo.config.limits import limits
from metacpo.config.reading import ConfigError, check_ranges
from metacpo.config.schema import Config
from metacpo.config.sections import WarmupSettings
from metacpo.envs import make
from metacpo.envs.base import Environment
from metacpo.envs.costs import SummedCosts
from metacpo.envs.observed import History, ObservedLimit, ObservedTask
from metacpo.envs.tasks import TaskDistribution
from metacpo.estimation import EstimationSettings
from metacpo.policies import GaussianPolicy, NetworkError, Policy, network_policy
from metacpo.runtime.devices import check_devices
from metacpo.runtime.references import LoadError, load


@dataclass(frozen=True)
class TrainingSetup:
    """Everything that stays the same during a run: what learns, where, and how."""

    env: Environment
    tasks: TaskDistribution
    policy: Policy
    estimation: EstimationSettings
    meta: MetaSettings
    algorithm: Algorithm
    multiplier: float = 1.0  # the first Lagrange multiplier, if the algorithm has one
    devices: int = 1  # that share the tasks


def warmup(setup: TrainingSetup, settings: WarmupSettings) -> TrainingSetup:
    """The learner of the warm-up: the same, but without inner steps, and with a constraint on the mean over tasks."""
    meta = replace(setup.meta, tasks=settings.tasks, steps=0, episodes=settings.episodes)
    rule = setup.algorithm.outer
    region = replace(rule.region, max_kl=settings.max_kl, damping=settings.damping)
    algorithm = replace(setup.algorithm, outer=replace(rule, region=region), per_task=False)
    estimation = replace(setup.estimation, outer_confidence=settings.confidence)
    return replace(setup, meta=meta, algorithm=algorithm, estimation=estimation)


MOST_LAYERS, MOST_PARAMETERS = 100, 2**27  # of a policy: half a gigabyte


def build(config: Config, of_a_run: bool = False, devices: int = 1) -> TrainingSetup:
    """What learns under these settings; of_a_run: they are those of a run folder, see `composed`.

    Raises ConfigError for settings that do not fit together, DeviceError for devices that cannot share their tasks.
    """
    env = make(config.env, config.physics, config.cost_kind)
    if config.constraints == "sum" and len(env.cost_names) > 1:
        env = SummedCosts(env)
    if config.history:
        env = History(env, config.history)
    if config.observe_task:  # outside of the history, which would repeat the task
        env = ObservedTask(env)
    tasks = limited(env.tasks, config, env.cost_names)
    if config.observe_limit:
        env = ObservedLimit(env, tasks.cost_limit)
    algorithm = composed(config, len(env.cost_names), of_a_run)
    shared = {"meta.tasks": config.meta.tasks}
    if config.warmup.iterations:
        shared["warmup.tasks"] = config.warmup.tasks
    check_devices(devices, shared)
    return TrainingSetup(
        env=env,
        tasks=tasks,
        policy=policy_of(config, env),
        estimation=config.estimation,
        meta=config.meta if algorithm.adapts else dataclasses.replace(config.meta, steps=0),
        algorithm=algorithm,
        multiplier=config.rule.multiplier,
        devices=devices,
    )


def policy_of(config: Config, env: Environment) -> Policy:
    """The user's network if one is named, else the tanh MLP. Raises ConfigError for one that does not fit."""
    if config.network:
        policy = _network(config, env)
    elif len(config.hidden) > MOST_LAYERS:
        raise ConfigError(f"hidden: {len(config.hidden)} layers; allowed: at most {MOST_LAYERS}")
    else:
        sizes = env.observation_size, env.action_size
        policy = GaussianPolicy(*sizes, config.hidden, config.initial_std, config.learn_std)
    if policy.size > MOST_PARAMETERS:
        name = "network" if config.network else "hidden"
        raise ConfigError(f"{name}: makes {policy.size} parameters; allowed: at most {MOST_PARAMETERS}")
    return policy


def _network(config: Config, env: Environment) -> Policy:
    try:
        network = load(config.network, "network")
        sizes = env.observation_size, env.action_size
        return network_policy(network, *sizes, config.initial_std, config.learn_std)
    except LoadError as error:
        raise ConfigError(f"network: {error}") from error
    except NetworkError as error:
        raise ConfigError(f"network: {config.network}: {error}") from error


def limited(tasks: TaskDistribution, config: Config, costs: tuple[str, ...]) -> TaskDistribution:
    """The family's tasks under the run's limits. Raises ConfigError where a policy is to see a limit that never varies:
    its normaliser would take any other for an outlier."""
    tasks = tasks.with_cost_limit(limits(config.cost_limit, costs))
    if config.limit_factors is not None:
        low, high = config.limit_factors
        tasks = replace(tasks, limit_factors=(low, high))
    low, high = tasks.limit_factors
    if config.observe_limit and low == high:
        raise ConfigError(
            f"observe_limit: true where all tasks have {low:g} times the limit; give limit_factors a range, as [0.5, 2]"
        )
    return tasks


def composed(config: Config, m: int, of_a_run: bool = False) -> Algorithm:
    """The algorithm of these settings for m constraints. Raises ConfigError for a composition that makes no sense, and
    for a number of its parts that is not in the `Range` on its field.

    A setting that the algorithm does not read is refused, but in a run folder: earlier versions wrote such ones.
    """
    parts = Parts(config.inner, config.outer, config.meta, config.rule)
    try:
        algorithm = compose(config.algorithm, parts, m)
        if not of_a_run:
            refuse_unread(config.algorithm, algorithm, _changed(config))
    except CompositionError as error:
        raise ConfigError(str(error)) from None
    for update, name in ((algorithm.inner, "inner"), (algorithm.outer, "outer")):
        check_ranges(update.objective, f"algorithm.{name}.objective")
        check_ranges(update.step, f"algorithm.{name}.step")
    return algorithm


def _changed(config: Config) -> dict[str, Any]:
    """The settings `OPTIONAL`, by dotted name, that are not at their default."""
    default = Config()
    values = {name: (attrgetter(name)(config), attrgetter(name)(default)) for name in OPTIONAL}
    return {name: value for name, (value, usual) in values.items() if value != usual}
