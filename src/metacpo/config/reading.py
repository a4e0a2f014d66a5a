"""Plain data, as TOML has it, into dataclasses of settings: types and ranges checked field by field.

Whatever is wrong is a `ConfigError` whose one line names the field, the value and what is allowed.
"""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from metacpo.runtime.numeric import Range, not_single, shown, within

LARGEST = 2**63  # whole numbers are below it, as in TOML

# Settings by the names that they had; a run folder is read with them (schema.py), one's own settings are not.
RENAMED = {
    "meta.held": "meta.constraint_on",
    "inner.caution": "inner.objective_kl_fraction",
    "outer.caution": "outer.objective_kl_fraction",
}


class ConfigError(Exception):
    """A setting that is not allowed; the message is one line."""


def fields_of(cls: type) -> list[tuple[str, Any]]:
    """Names and types of a dataclass's fields, with their ranges."""
    hints = get_type_hints(cls, include_extras=True)
    return [(item.name, hints[item.name]) for item in fields(cls)]


def read(kind: Any, value: Any, name: str, interval: str = "(-inf, inf)") -> Any:
    """`value` (plain data as TOML has it, or settings) as the type `kind`; `name` is its dotted name.

    A number lies in `interval`, or in that of the `Range` on the field.
    """
    if get_origin(kind) is Annotated:
        kind, *marks = get_args(kind)
        (interval,) = [mark.interval for mark in marks if isinstance(mark, Range)] or [interval]
        return read(kind, value, name, interval)
    if is_dataclass(kind):
        return _read_section(kind, value, name)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{name}: {shown(value)} is not one of {', '.join(get_args(kind))}")
        return value
    if NoneType in get_args(kind):  # optional: None where it is left out
        (wanted,) = set(get_args(kind)) - {NoneType}
        return None if value is None else read(wanted, value, name, interval)
    if get_origin(kind) in (Union, UnionType):  # one number or a list of them
        kind = get_args(kind)[isinstance(value, list | tuple)]
    if get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{name}: {shown(value)} is not a list")
        return tuple(read(get_args(kind)[0], item, name, interval) for item in value)
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
    if kind in (int, float) and not within(value, interval):
        raise ConfigError(f"{name}: {shown(value)} is not in {interval}")
    if kind is float and (wrong := not_single(value, interval)):
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


def check_ranges(part: Any, name: str) -> None:
    """Raises ConfigError for a number of a dataclass that is not in the `Range` on its field."""
    for item, kind in fields_of(type(part)) if is_dataclass(part) else ():
        if any(isinstance(mark, Range) for mark in get_args(kind)):
            read(kind, getattr(part, item), f"{name}.{item}")


def merged(data: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `overrides` in place; sections merge, everything else is replaced."""
    result = dict(data)
    for name, value in overrides.items():
        section = isinstance(value, Mapping) and isinstance(result.get(name, {}), Mapping)
        result[name] = merged(result.get(name, {}), value) if section else value
    return result
