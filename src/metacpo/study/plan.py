"""A study: variants of presets, each trained with several seeds, as a TOML file says.

seeds = [0, 1, 2]
tuning = false                        # optional: true if a preset is to be chosen by it, never on the tasks of reports

[[variants]]
name = "navigation-network"
preset = "navigation"
estimation = { critic = "network" }   # what differs from the preset
seeds = [0]                           # optional: other seeds than the study's
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metacpo.config.reading import ConfigError, read
from metacpo.config.schema import Config, Seed, tree_in
from metacpo.runtime.numeric import shown

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # it becomes part of a folder's name
MOST_RUNS = 1000


@dataclass(frozen=True)
class PlannedRun:
    """One variant with one seed."""

    variant: str
    config: Config
    tuning: bool = False  # judged on tasks that no result is reported on


def read_study(path: Path) -> list[PlannedRun]:
    """Every run of a study, in the file's order. Raises ConfigError, whose one line names the file and the field."""
    plan = tree_in(path)
    try:
        return _runs(plan)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _runs(plan: dict[str, Any]) -> list[PlannedRun]:
    for name in plan.keys() - {"seeds", "tuning", "variants"}:
        raise ConfigError(f"{name!r}: unknown; allowed: seeds, tuning, variants")
    tuning = read(bool, plan.get("tuning", False), "tuning")
    variants = plan.get("variants")
    if not isinstance(variants, list) or not variants or not all(isinstance(each, dict) for each in variants):
        raise ConfigError("variants: missing; wanted: [[variants]], each with a name and a preset")
    runs, names = [], set()
    for place, variant in enumerate(variants):
        where = f"variants[{place}]"
        name = variant.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ConfigError(f"{where}.name: {shown(name)} is not a name of letters, digits and ._-")
        if name in names:
            raise ConfigError(f"{where}.name: {name} is there twice")
        names.add(name)
        seeds = _seeds(variant.get("seeds", plan.get("seeds")), where if "seeds" in variant else "")
        if len(runs) + len(seeds) > MOST_RUNS:
            raise ConfigError(f"variants: more than {MOST_RUNS} runs")
        runs += [PlannedRun(name, _config(variant, seed, f"{where} ({name})"), tuning) for seed in seeds]
    return runs


def _seeds(seeds: Any, where: str) -> list[int]:
    field = f"{where}.seeds" if where else "seeds"
    if not isinstance(seeds, list) or not seeds:
        raise ConfigError(f"{field}: {shown(seeds)} is not a list of whole numbers")
    try:
        numbers = [read(Seed, seed, "seed") for seed in seeds]
    except ConfigError as error:
        raise ConfigError(f"{field}: {str(error).removeprefix('seed: ')}") from None
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"{field}: a seed is there twice")
    return numbers


def _config(variant: dict[str, Any], seed: int, where: str) -> Config:
    """The preset with what the variant says differs."""
    changes = {name: value for name, value in variant.items() if name not in ("name", "preset", "seeds")}
    for name in changes.keys() & {"seed", "preset_name"}:
        raise ConfigError(f"{where}: {name}: not for a variant to say; allowed: seeds, preset")
    preset = variant.get("preset")
    if not isinstance(preset, str):
        raise ConfigError(f"{where}: preset: {shown(preset)} is not a name")
    try:
        return Config.preset(preset, seed=seed, **changes)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
