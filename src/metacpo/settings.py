"""Plain data, as TOML has it, into dataclasses of settings: types and ranges checked field by field.

Whatever is wrong is a `ConfigError` whose one line names the field, the value and what is allowed.
"""

import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from metacpo.numeric import shown

LARGEST = 2**63  # whole numbers are below it, as in TOML
SMALLEST = float(np.finfo(np.float32).tiny)  # below it a float32 is 0: compiled programs have no subnormal numbers

# Settings by the names that they had; a run folder is read with them (config.py), one's own settings are not.
RENAMED = {
    "meta.held": "meta.constraint_on",
    "inner.caution": "inner.objective_kl_fraction",
    "outer.caution": "outer.objective_kl_fraction",
}


class ConfigError(Exception):
    """A setting that is not allowed; the message is one line."""


# What every number must lie in, by dotted name. One notation for the check and for the message.
RANGES = {
    "seed": "[0, 4294967295]",
    "total_steps": "[1, inf)",
    "iterations": "[0, inf)",
    "cost_limit": "[0, inf)",
    "hidden": "[1, inf)",
    "initial_std": "(0, inf)",
    "history": "[0, 64]",
    "checkpoint_every": "[1, inf)",
    "warmup.iterations": "[0, inf)",
    "warmup.tasks": "[1, inf)",
    "warmup.episodes": "[1, inf)",
    "warmup.max_kl": "(0, inf)",
    "warmup.damping": "[0, inf)",
    "warmup.confidence": "(0, 1)",
    "meta.tasks": "[1, inf)",
    "meta.steps": "[0, inf)",
    "meta.episodes": "[1, inf)",
    "estimation.gamma": "(0, 1]",
    "estimation.lam": "[0, 1]",
    "estimation.cost_gamma": "(0, 1]",
    "estimation.cost_lam": "[0, 1]",
    "estimation.confidence": "(0, 1)",
    "estimation.outer_confidence": "(0, 1)",
    "rule.penalty": "[0, inf)",
    "rule.multiplier": "(0, inf)",
    "rule.proportional": "[0, inf)",
    "rule.integral": "[0, inf)",
    "rule.derivative": "[0, inf)",
    "rule.tolerance": "[0, inf)",
    "rule.step_size": "(0, inf)",
    "rule.kl_price": "(0, inf)",
    "rule.kl_cost_price": "[0, inf)",
    "adaptation.steps": "[0, inf)",
    "adaptation.episodes": "[1, inf)",
    "adaptation.tasks": "[1, inf)",
} | {
    f"{region}.{name}": allowed
    for region in ("inner", "outer")
    for name, allowed in {
        "max_kl": "(0, inf)",
        "objective_kl_fraction": "(0, 1]",
        "damping": "[0, inf)",
        "cg_iterations": "[1, inf)",
        "cg_tolerance": "[0, inf)",
        "fisher_stride": "[1, inf)",
        "backtrack_ratio": "(0, 1)",
        "backtracks": "[0, inf)",
    }.items()
}


def fields_of(cls: type) -> list[tuple[str, Any]]:
    """Names and types of a dataclass's fields."""
    hints = get_type_hints(cls)
    return [(item.name, hints[item.name]) for item in fields(cls)]


def read(kind: Any, value: Any, name: str) -> Any:
    """`value` (plain data as TOML has it, or settings) as the type `kind`; `name` is its dotted name."""
    if is_dataclass(kind):
        return _read_section(kind, value, name)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{name}: {shown(value)} is not one of {', '.join(get_args(kind))}")
        return value
    if NoneType in get_args(kind):  # optional: None where it is left out
        (wanted,) = set(get_args(kind)) - {NoneType}
        return None if value is None else read(wanted, value, name)
    if get_origin(kind) in (Union, UnionType):  # one number or a list of them
        kind = get_args(kind)[isinstance(value, list | tuple)]
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: {shown(value)} is not a list")
        return tuple(read(get_args(kind)[0], item, name) for item in value)
    accepted, words = {
        bool: (bool, "true or false"),
        int: (int, "a whole number"),
        float: (float | int, "a number"),
        str: (str, "a text"),
    }[kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(f"{name}: {shown(value)} is not {words}")
    if kind is int and abs(value) >= LARGEST:
        raise ConfigError(f"{name}: {shown(value)} is not a whole number of 64 bits")
    if kind in (int, float) and not _within(value, RANGES[name]):
        raise ConfigError(f"{name}: {shown(value)} is not in {RANGES[name]}")
    if kind is float and (wrong := not_single(value, RANGES[name])):
        raise ConfigError(f"{name}: {shown(value)} {wrong}")
    return kind(value)


def _read_section(kind: Any, value: Any, name: str) -> Any:
    """A settings dataclass from some of its fields, or an existing one, checked field by field."""
    known = dict(fields_of(kind))
    if isinstance(value, kind):
        value = {item: getattr(value, item) for item in known}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name}: {shown(value)} is not a section of settings")
    dotted = {item: f"{name}.{item}" if name else item for item in value}
    for item in value:
        if dotted[item] in RENAMED:
            raise ConfigError(f"{dotted[item]}: is called {RENAMED[dotted[item]]} now")
        if item not in known:
            raise ConfigError(f"{dotted[item]}: unknown setting; allowed: {', '.join(known)}")
    return kind(**{item: read(known[item], value[item], dotted[item]) for item in value})


def _within(value: float | int, allowed: str) -> bool:
    """Whether a number lies in an interval such as "(0, 1]"; NaN lies in none."""
    low, high = (float(end) for end in allowed[1:-1].split(","))
    if abs(value) >= sys.float_info.max:  # of infinities, and of whole numbers that no float holds
        return False
    above = value > low if allowed[0] == "(" else value >= low
    return above and (value < high if allowed[-1] == ")" else value <= high)


def not_single(value: float | int, allowed: str) -> str | None:
    """What is wrong with a number where programs compute in float32: it does not lie in the interval there, or is 0
    though it was not. None if nothing is."""
    single = single_of(value)
    if not _within(single, allowed) or (single == 0) != (value == 0):
        return f"is {single:g} in float32, which is what programs compute in; allowed: {allowed}"
    return None


def single_of(value: float | int) -> float:
    """The float32 next to a number as a processor has it: infinite above 3.4e38, 0 below 1.2e-38."""
    with np.errstate(over="ignore", under="ignore"):
        single = float(np.float32(value))
    return single if abs(single) >= SMALLEST else 0.0


def merged(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `overrides` in place; sections merge, everything else is replaced."""
    result = dict(data)
    for name, value in overrides.items():
        section = isinstance(value, Mapping) and isinstance(result.get(name, {}), Mapping)
        result[name] = merged(result.get(name, {}), value) if section else value
    return result
