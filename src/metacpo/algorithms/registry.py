"""Algorithms by name, each one composition of the same parts; `docs/algorithms.md` compares them.

All updates have the same trust regions, critics, normaliser and line search (docs/adaptation.md), so that two
algorithms differ only where their docstrings do. An algorithm of one's own has a name by `register_algorithm`, by an
installed package's entry point in the group `metacpo.algorithms`, or is FILE.py:ATTRIBUTE or MODULE:ATTRIBUTE.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import entry_points
from typing import Any, cast

from metacpo.algorithms import baselines, meta_baselines
from metacpo.algorithms.algorithm import Algorithm, Composition, Parts
from metacpo.algorithms.meta_cpo import meta_cpo
from metacpo.algorithms.meta_crpo import meta_crpo
from metacpo.algorithms.settings import OPTIONAL
from metacpo.runtime.numeric import shown
from metacpo.runtime.references import LoadError, load, what_failed

ENTRY_POINTS = "metacpo.algorithms"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it becomes part of a folder's name
ALGORITHMS: dict[str, Composition] = {
    "meta-cpo": meta_cpo,
    "meta-trpo": meta_baselines.meta_trpo,
    "cpo": baselines.cpo,
    "trpo": baselines.trpo,
    "pcpo": baselines.pcpo,
    "cpo-lagrangian": baselines.cpo_lagrangian,
    "trpo-lagrangian": baselines.trpo_lagrangian,
    "meta-lagrangian": meta_baselines.meta_lagrangian,
    "maml-penalty": meta_baselines.maml_penalty,
    "safe-meta": meta_baselines.safe_meta,
    "c-maml": meta_baselines.c_maml,
    "meta-crpo": meta_crpo,
}


class CompositionError(ValueError):
    """A composition that makes no sense; the message names the field, what was given and what is allowed."""


def register_algorithm(name: str, composition: Composition | Algorithm) -> None:
    """Make an algorithm known as `name`: in TOML, on the command line and in `Config`.

    composition: a function from `Parts` (the regions and the settings) to the `Algorithm`, or an Algorithm, whose
    regions are then those of the settings. Raises CompositionError if the name is taken: nothing is replaced silently.
    """
    if not NAME.fullmatch(name):
        raise CompositionError(f"algorithm: {shown(name)} is not a name of letters, digits and ._-")
    if known(name):
        raise CompositionError(f"algorithm: {name!r} is registered already; take another name")
    ALGORITHMS[name] = _composition(name, composition)


def known(name: str) -> bool:
    """Whether `compose` may find this name: it is registered, or it says where to look."""
    return (":" in name and name.isprintable()) or name in ALGORITHMS or name in _installed()


def compose(name: str, parts: Parts, m: int) -> Algorithm:
    """The algorithm `name` of these parts for m constraints. Raises CompositionError for what makes no sense."""
    algorithm, meta = _made(name, parts), parts.meta
    if unknown := set(algorithm.reads) - set(OPTIONAL):
        raise CompositionError(f"algorithm: {name!r} reads {sorted(unknown)}; allowed: {', '.join(OPTIONAL)}")
    if algorithm.adapts and meta.steps == 0:
        remedy = "leaves algorithm {!r} nothing to learn through; take 1 or more, or algorithm 'cpo'"
        raise CompositionError(f"meta.steps: 0 {remedy.format(name)}")
    if extra := sorted(set(algorithm.learned) - set(algorithm.learnable)):
        allowed = ", ".join(algorithm.learnable) or "nothing"
        raise CompositionError(f"meta.learned: {extra!r} is not for algorithm {name!r}; allowed: {allowed}")
    if algorithm.constraint_on not in algorithm.gradient.holds:
        why = f"is not for the meta-gradient {type(algorithm.gradient).__name__}"
        allowed = ", ".join(algorithm.gradient.holds)
        raise CompositionError(f"meta.constraint_on: {algorithm.constraint_on!r} {why}; allowed: {allowed}")
    if algorithm.most_constraints is not None and m > algorithm.most_constraints:
        why = f"is not for algorithm {name!r}, which takes {algorithm.most_constraints} of the {m}"
        raise CompositionError(f"constraints: 'each' {why}; take 'sum'")
    return algorithm


def refuse_unread(name: str, algorithm: Algorithm, changed: Mapping[str, Any]) -> None:
    """Raises CompositionError for a changed setting of `OPTIONAL` (by dotted name) that the algorithm does not read."""
    for field, given in changed.items():
        if field in OPTIONAL and field not in algorithm.reads:
            readers = ", ".join(other for other in ALGORITHMS if field in _made(other, Parts()).reads)
            value = list(given) if isinstance(given, tuple) else given
            raise CompositionError(f"{field}: {shown(value)} is not for algorithm {name!r}; allowed with {readers}")


def _made(name: str, parts: Parts) -> Algorithm:
    """The algorithm that `name` is of these parts."""
    composition = _found(name)
    try:
        algorithm = composition(parts)
    except Exception as error:  # in code of the user's
        raise CompositionError(f"algorithm: {what_failed('cannot be composed', name, error)}") from error
    if not isinstance(algorithm, Algorithm):
        raise CompositionError(f"algorithm: {name!r} makes a {type(algorithm).__name__}, not a metacpo Algorithm")
    return algorithm


def _found(name: str) -> Composition:
    try:
        if name in ALGORITHMS:
            return ALGORITHMS[name]
        if ":" in name:
            return _named(name, load(name, "algorithm"))
        if name in _installed():
            return _composition(name, _imported(name))
    except LoadError as error:
        raise CompositionError(f"algorithm: {error}") from error
    names = ", ".join((*ALGORITHMS, *_installed()))
    raise CompositionError(f"algorithm: {name!r} is not one of {names}, nor a MODULE:ATTRIBUTE")


def _named(name: str, value: Any) -> Composition:
    """What a module holds. A function that is merely named is not called: a run folder must not be able to say
    shutil:rmtree. One that is registered is meant to be."""
    if isinstance(value, Algorithm) or any(value is registered for registered in ALGORITHMS.values()):
        return _composition(name, value)
    kind = type(value).__name__
    raise CompositionError(f"algorithm: {name} is a {kind}, neither an Algorithm nor a registered composition")


def _composition(name: str, value: Any) -> Composition:
    """A function as it is; an Algorithm as one that puts it into the trust regions of the settings."""
    if not isinstance(value, Algorithm):
        if callable(value):
            return cast(Composition, value)
        raise CompositionError(f"algorithm: {name} is a {type(value).__name__}, neither an Algorithm nor a function")

    def in_regions(parts: Parts) -> Algorithm:
        inner, outer = replace(value.inner, region=parts.inner), replace(value.outer, region=parts.outer)
        return replace(value, inner=inner, outer=outer)

    return in_regions


def _imported(name: str) -> Any:
    """What an installed package has under this name."""
    try:
        return _installed()[name].load()
    except (Exception, SystemExit) as error:
        raise LoadError(what_failed("cannot be imported", name, error)) from error


def _installed() -> dict[str, Any]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
