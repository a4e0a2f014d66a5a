"""All settings of a run: one typed tree, read from TOML and the command line, saved with the run.

A `Config` that exists is valid: types and ranges are checked when it is made, and nothing changes it later.
Everything that is wrong is a `ConfigError` whose one line names the field, the value and what is allowed.
"""

import dataclasses
import tomllib
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
import tyro

from metacpo.algorithms.registry import ALGORITHMS
from metacpo.algorithms.registry import known as known_algorithm
from metacpo.algorithms.settings import MetaSettings, RuleSettings
from metacpo.algorithms.trust_region import TrustRegionSettings
from metacpo.config.limits import CostLimit, check_factors
from metacpo.config.reading import RENAMED, ConfigError, fields_of, merged, read
from metacpo.config.sections import AdaptationSettings, WarmupSettings
from metacpo.envs import ENVIRONMENTS, PHYSICS, known
from metacpo.estimation import EstimationSettings
from metacpo.run_folder import replacing, short_text
from metacpo.runtime.numeric import Range, shown
from metacpo.runtime.references import located

PRESETS = files("metacpo") / "presets"
LONGEST = 2**18  # characters of a file of settings
BYTE_ORDER_MARK = "\ufeff"  # some editors begin a UTF-8 file with it
FORMAT = 3  # of run folders, the number in their config.toml; docs/trust.md says what changed it

# Settings that are no more: a run folder is read without them, one's own settings must not have them. `confidence` took
# the place of targets and margins, and is at its default for such a run; line searches are all as by default.
SEARCH = ("backtrack_ratio", "backtracks")
GONE = {
    "estimation": ("cost_target", "cost_margin", "critic_margin"),
    "warmup": ("cost_target", "cost_margin"),
    "inner": SEARCH,
    "outer": SEARCH,
}

# Families whose costs became indicators with format 3: a run of an older one learned in graded costs.
GRADED_BEFORE = ("point-circle-hazard", "car-circle-hazard", "point-button-hazard")

# What a preset says of the outer constraint is said of its own algorithm, not of another one.
OF_ITS_ALGORITHM = {"meta": ("meta_constraints", "constraint_on"), "estimation": ("outer_confidence",)}


Seed = Annotated[int, Range("[0, 4294967295]")]


@dataclass(frozen=True)
class Config:
    """What is trained, on what, for how long; the preset gives the values that are not set."""

    preset_name: tyro.conf.Suppress[str] = "point-circle"
    env: str = "point-circle"
    """Family of tasks; MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE is one of your own."""
    physics: str = "mujoco"
    """Engine that advances the bodies."""
    algorithm: str = "meta-cpo"
    """docs/algorithms.md compares them; MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE is one of your own."""
    seed: Seed = 0
    """Of everything random in the training."""
    total_steps: Annotated[int, Range("[1, inf)")] = 10_000_000
    """Environment steps of the training, the same for every algorithm; how many iterations they are follows."""
    iterations: Annotated[int | None, Range("[0, inf)")] = None
    """Meta-iterations, instead of those that total_steps pays for; 0 trains nothing."""
    constraints: Literal["sum", "each"] = "sum"
    """One constraint on the environment's costs in total, or one on each."""
    cost_kind: Literal["indicator", "graded"] | None = None
    """A step costs 0 or 1, or by degrees; the family's own kind if not given."""
    cost_limit: Annotated[CostLimit, Range("[0, inf)")] = 25.0
    """Limit h on the cost that estimation.cost_measure names, in its units; a list: of each constraint."""
    limit_factors: Annotated[tuple[float, ...] | None, Range("[0, inf)")] = None
    """Every task's limit is cost_limit times a number that is uniform between these two; the family's if not given."""
    hidden: Annotated[tuple[int, ...], Range("[1, inf)")] = (32, 16)
    """Widths of the policy's tanh layers."""
    network: str = ""
    """Network of your own instead of them: an Equinox module's class, MODULE:CLASS or FILE.py:CLASS."""
    initial_std: Annotated[float, Range("(0, inf)")] = 0.6
    """Standard deviation of the first policy's actions."""
    learn_std: tyro.conf.FlagCreatePairsOff[bool] = True
    """Whether updates change it; if not, it is the same for all policies."""
    observe_task: tyro.conf.FlagCreatePairsOff[bool] = False
    """Append the task's parameters to the observation: a policy that need not find them out, the ceiling."""
    observe_limit: tyro.conf.FlagCreatePairsOff[bool] = False
    """Append the task's limits to the observation, as multiples of cost_limit."""
    history: Annotated[int, Range("[0, 64]")] = 0
    """Append the last H observations, actions and costs to the observation: a memory instead of updates."""
    checkpoint_every: Annotated[int, Range("[1, inf)")] = 20
    """Meta-iterations between two checkpoints."""
    warmup: WarmupSettings = field(default_factory=WarmupSettings)
    meta: MetaSettings = field(default_factory=MetaSettings)
    estimation: EstimationSettings = field(default_factory=EstimationSettings)
    inner: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    outer: TrustRegionSettings = field(default_factory=TrustRegionSettings)
    rule: RuleSettings = field(default_factory=RuleSettings)
    adaptation: AdaptationSettings = field(default_factory=AdaptationSettings)

    def __post_init__(self):
        for item, kind in fields_of(Config):
            read(kind, getattr(self, item), item)
        if not known(self.env):
            raise ConfigError(f"env: {self.env!r} is not one of {', '.join(ENVIRONMENTS)}, nor MODULE:ATTRIBUTE")
        if not known_algorithm(self.algorithm):
            names = ", ".join(ALGORITHMS)
            raise ConfigError(f"algorithm: {self.algorithm!r} is not one of {names}, nor MODULE:ATTRIBUTE")
        if self.network and not (":" in self.network and self.network.isprintable()):
            raise ConfigError(f"network: {shown(self.network)} is neither MODULE:CLASS nor FILE.py:CLASS")
        if self.network and self.hidden != Config.hidden:
            raise ConfigError(
                f"hidden: {shown(list(self.hidden))} beside network {shown(self.network)}; allowed: one of the two"
            )
        if self.physics not in PHYSICS:
            raise ConfigError(f"physics: {self.physics!r} is not one of {', '.join(PHYSICS)}")
        if self.limit_factors is not None:
            check_factors(self.limit_factors)

    @staticmethod
    def preset(name: str, **overrides: Any) -> "Config":
        """The shipped preset `name`; an override replaces a field, or with a mapping parts of a section.

        For another algorithm than the preset's, OF_ITS_ALGORITHM is left out of it, and `hidden` for a network.
        """
        if name not in presets():
            raise ConfigError(f"preset: {name!r} is not one of {', '.join(presets())}")
        data = tomllib.loads((PRESETS / f"{name}.toml").read_text(encoding="utf-8"))
        if overrides.get("algorithm", data["algorithm"]) != data["algorithm"]:
            data = _without(data, OF_ITS_ALGORITHM)
        if overrides.get("network"):
            data.pop("hidden", None)
        return read(Config, merged({"preset_name": name} | data, overrides), "")

    @staticmethod
    def load(path: Path) -> "Config":
        """The settings in a TOML file; what it leaves out has its default. A FILE.py is found beside it."""
        return Config.saved(path, unnumbered=FORMAT).located(path.parent)

    @staticmethod
    def saved(path: Path, unnumbered: int = 1) -> "Config":
        """The settings in a TOML file as they stand there, `save`'s counterpart.

        unnumbered: the format of a file that names none: of a run folder the first, of one's own settings today's, in
        which a setting that is gone is unknown.
        """
        data = tree_in(path)
        of_a_run = "format" in data or unnumbered == 1
        number = data.pop("format", unnumbered)
        _check_format(number, path)
        if of_a_run:
            data = _with_new_names(_without(data, GONE))
        if of_a_run and number < 3 and data.get("env") in GRADED_BEFORE:
            data = {"cost_kind": "graded"} | data
        if data.get("network") and "hidden" in data:
            raise ConfigError(f"hidden: {shown(data['hidden'])} beside network; allowed: one of the two")
        return read(Config, {"preset_name": path.stem} | data, "")

    def located(self, folder: Path) -> "Config":
        """The same, with every FILE.py that was named as seen from `folder` by its absolute path."""
        places = {name: located(getattr(self, name), folder) for name in ("env", "algorithm", "network")}
        return dataclasses.replace(self, **places)

    def save(self, path: Path) -> None:
        """Every setting, also those at their default: a run must not change with the library's defaults.

        Without `hidden` where a network takes its place.
        """
        stated = dataclasses.asdict(self, dict_factory=_stated)
        if self.network:
            del stated["hidden"]
        with replacing(path) as part:
            part.write_text(tomli_w.dumps({"format": FORMAT} | stated), encoding="utf-8")


def tree_in(path: Path) -> dict[str, Any]:
    """What a TOML file of settings holds. Raises ConfigError, whose one line names the file."""
    try:
        return tomllib.loads(short_text(path, LONGEST).removeprefix(BYTE_ORDER_MARK))
    except FileNotFoundError:
        raise ConfigError(f"{path}: missing") from None
    except (OSError, ValueError, RecursionError) as error:  # no text, no TOML, digits or nesting without end
        raise ConfigError(f"{path}: cannot be read ({error})") from None


def _stated(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The settings of a section that have a value: TOML has no None."""
    return {name: value for name, value in items if value is not None}


def _without(data: dict[str, Any], names: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """A tree of settings without those of `names`, by section."""

    def kept(section: str, value: Any) -> Any:
        gone = names.get(section, ())
        return {k: v for k, v in value.items() if k not in gone} if isinstance(value, dict) else value

    return {section: kept(section, value) for section, value in data.items()}


def _with_new_names(data: dict[str, Any]) -> dict[str, Any]:
    """A tree of settings with those that have another name by now under that."""

    def renamed(section: str, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {RENAMED.get(f"{section}.{k}", f"{section}.{k}").rpartition(".")[2]: v for k, v in value.items()}

    return {section: renamed(section, value) for section, value in data.items()}


def _check_format(number: Any, path: Path) -> None:
    """Raises ConfigError for a format that this version does not read."""
    if type(number) is int and number > FORMAT:
        raise ConfigError(f"{path}: format {number} is newer than this metacpo, which reads {FORMAT}; update metacpo")
    if type(number) is not int or number < 1:
        raise ConfigError(f"{path}: format {number!r} is not one that this metacpo reads; allowed: 1 to {FORMAT}")


def presets() -> list[str]:
    """Names of the shipped presets."""
    return sorted(path.name.removesuffix(".toml") for path in PRESETS.iterdir() if path.name.endswith(".toml"))
