"""What an environment declares of itself (sizes, steps, names of costs, tasks), checked before it is used."""

import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import jax
import numpy as np

from metacpo.envs.base import CostKind
from metacpo.envs.tasks import SPLITS, TaskError
from metacpo.runtime.numeric import shown

TASKS = 8  # of each split, for what the distribution draws
SEPARATORS = "/,"  # of folders in a log, and of columns in a CSV file


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: a name to look up, a line that says what and the remedy, whether it stops a training."""

    name: str
    text: str
    fatal: bool = True

    def __str__(self) -> str:
        return f"{self.name}: {self.text}"


def declared_faults(env: Any) -> Iterator[Finding]:
    """All that is wrong with what `env` declares."""
    yield from cost_name_faults(env.cost_names)
    yield from length_faults(env.episode_length)
    if (kind := getattr(env, "cost_kind", "graded")) not in get_args(CostKind):
        yield Finding("cost-kind", f"cost_kind is {shown(kind)}; give one of {', '.join(get_args(CostKind))}")
    for name in ("observation_size", "action_size"):
        if not _counts(getattr(env, name)):
            yield Finding(
                name.replace("_", "-"), f"{name} is {shown(getattr(env, name))}; give a whole number, at least 1"
            )


def task_faults(env: Any) -> Iterator[Finding]:
    """Of its distribution: limits, the reference task, what each split draws."""
    tasks, m = env.tasks, len(env.cost_names)
    if len(tasks.cost_limit) != m:
        yield Finding(
            "cost-limit", f"tasks.cost_limit has {len(tasks.cost_limit)} numbers for {m} costs {env.cost_names}"
        )
        return
    try:
        tasks.make({})
    except TaskError as error:
        yield Finding("task-range", f"the reference task: {error}")
        return
    for split in SPLITS:
        try:
            drawn = tasks.sample_batch(jax.random.key(0), TASKS, split)
        except TaskError as error:
            yield Finding("task-draw", str(error))
            return
        if set(drawn.params) != set(tasks.parameters):
            yield Finding(
                "task-fields", f"{split} draws {sorted(drawn.params)}, declared are {sorted(tasks.parameters)}"
            )
            return
        for name, values in drawn.params.items():
            field, values = tasks.parameters[name], np.asarray(values)
            if not np.all((values >= field.low) & (values <= field.high)):
                bad = values[~((values >= field.low) & (values <= field.high))][0]
                yield Finding(
                    "task-range", f"{split} draws {name} = {bad:g}, declared is [{field.low:g}, {field.high:g}]"
                )


def length_faults(length: Any) -> Iterator[Finding]:
    """Of an episode's number of steps."""
    if not _counts(length):
        yield Finding("episode-length", f"episode_length is {shown(length)}; give a whole number of steps, at least 1")


def cost_name_faults(names: Any) -> Iterator[Finding]:
    """Of the names of the costs, which become columns of tables and names in a log."""
    if not isinstance(names, tuple):
        yield Finding("cost-names", f"cost_names is {shown(names)}; give a tuple of names, such as ('cost',)")
        return
    if not names:
        yield Finding("missing-cost", "cost_names is empty; name at least one cost: nothing is safe by default")
    for i, name in enumerate(names):
        if not (isinstance(name, str) and _plain(name)):
            allowed = f"give text without {' '.join(SEPARATORS)} and line breaks, and without spaces at its ends"
            yield Finding("cost-names", f"cost_names has {shown(name)}; {allowed}")
        elif name in names[:i]:
            yield Finding("cost-names", f"cost_names has {name!r} twice; every cost needs a name of its own")


def _plain(name: str) -> bool:
    return name.isprintable() and name.strip() == name != "" and not set(name) & set(SEPARATORS)


def _counts(value: Any) -> bool:
    """Whether it is a whole number of at least one; true and false are none."""
    try:
        return not isinstance(value, bool) and operator.index(value) >= 1
    except TypeError:
        return False
