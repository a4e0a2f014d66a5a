"""The config: what is read is what was written, and what is not allowed says so."""

import dataclasses
import tomllib
from dataclasses import fields, is_dataclass
from typing import get_args

import pytest

from metacpo.algorithms.algorithm import Parts
from metacpo.algorithms.registry import ALGORITHMS
from metacpo.algorithms.settings import OPTIONAL, MetaSettings, RuleSettings
from metacpo.config.reading import fields_of
from metacpo.config.schema import Config, ConfigError, presets
from metacpo.runtime.numeric import Range
from metacpo.training.setup import build, composed

SMOKE = "point-circle-smoke"


def kinds_in(kind) -> set[type]:
    """The types that an annotation is made of."""
    parts = [part for part in get_args(kind) if part is not ... and not isinstance(part, Range)]
    return set().union(*map(kinds_in, parts)) if parts else {kind}


def numeric_fields(cls, prefix=""):
    """(dotted name, intervals of its ranges) of all fields that hold numbers."""
    for name, kind in fields_of(cls):
        if is_dataclass(kind):
            yield from numeric_fields(kind, f"{prefix}{name}.")
        elif kinds_in(kind) & {int, float}:
            yield prefix + name, [mark.interval for mark in get_args(kind) if isinstance(mark, Range)]


RANGES = dict(numeric_fields(Config))


@pytest.mark.parametrize("name", presets())
def test_every_preset_loads_and_builds_what_it_says(name):
    config = Config.preset(name)
    setup = build(config)
    assert config.preset_name == name
    assert setup.policy.hidden == config.hidden
    assert setup.tasks.cost_limit == (config.cost_limit,)


def test_presets_limit_the_cost_that_the_design_says():
    measures = {name: Config.preset(name).estimation.cost_measure for name in presets()}
    limits = {name: Config.preset(name).cost_limit for name in presets()}
    assert (measures["point-circle"], limits["point-circle"]) == ("episode", 25.0)
    assert (measures["point-circle-paper"], limits["point-circle-paper"]) == ("discounted", 10.0)


@pytest.mark.parametrize("name", presets())
def test_toml_round_trip(name, tmp_path):
    config = Config.preset(name, seed=7, meta={"steps": 2}, hidden=(5, 4, 3), cost_limit=12)
    config.save(tmp_path / "config.toml")
    assert Config.load(tmp_path / "config.toml") == config


@pytest.mark.parametrize("iterations", [None, 0, 7])
def test_an_optional_setting_is_left_out_or_written(iterations, tmp_path):
    config = Config.preset(SMOKE, iterations=iterations, total_steps=123_456)
    config.save(tmp_path / "config.toml")
    assert Config.saved(tmp_path / "config.toml") == dataclasses.replace(config, preset_name=SMOKE)
    written = tomllib.loads((tmp_path / "config.toml").read_text())
    assert written.get("iterations", "left out") == ("left out" if iterations is None else iterations)
    assert written["total_steps"] == 123_456


@pytest.mark.parametrize("confidence", [None, 0.5])
def test_an_optional_setting_of_a_section_is_left_out_or_written(confidence, tmp_path):
    config = Config.preset(SMOKE, estimation={"outer_confidence": confidence})
    config.save(tmp_path / "config.toml")
    assert Config.saved(tmp_path / "config.toml").estimation == config.estimation
    written = tomllib.loads((tmp_path / "config.toml").read_text())["estimation"]
    assert written.get("outer_confidence") == confidence


def test_overrides_merge_into_sections_and_leave_the_preset_alone():
    before = Config.preset(SMOKE)
    changed = Config.preset(SMOKE, meta={"tasks": 3}, seed=1)
    assert changed.meta == dataclasses.replace(before.meta, tasks=3)
    assert Config.preset(SMOKE, meta=MetaSettings(tasks=9)).meta == MetaSettings(tasks=9)
    assert Config.preset(SMOKE) == before


def test_one_constraint_on_the_sum_or_one_on_each():
    limits = {
        ("sum", 25.0): (25.0,),
        ("each", 25.0): (25.0, 25.0),
        ("each", (20.0, 5.0)): (20.0, 5.0),
        ("sum", (30.0,)): (30.0,),
    }
    for (constraints, cost_limit), expected in limits.items():
        config = Config.preset("car-circle-hazard", constraints=constraints, cost_limit=cost_limit)
        setup = build(config)
        assert setup.tasks.cost_limit == expected
        assert len(setup.env.cost_names) == len(expected)


@pytest.mark.parametrize("constraints", ["sum", "each"])
def test_a_list_of_limits_has_one_for_each_constraint(constraints):
    config = Config.preset("point-button-hazard", constraints=constraints, cost_limit=[1, 2, 3])
    names = {"sum": r"one for all, or 1 \(buttons\+hazards\)", "each": r"one for all, or 2 \(buttons, hazards\)"}
    with pytest.raises(
        ConfigError, match=rf"cost_limit: \[1\.0, 2\.0, 3\.0\] has 3 numbers; wanted: {names[constraints]}"
    ):
        build(config)


def test_every_algorithm_has_a_name_and_is_built():
    steps = Config.preset(SMOKE).meta.steps
    found = {}
    for name in ALGORITHMS:
        setup = build(Config.preset(SMOKE, algorithm=name))
        found[name] = (setup.meta.steps > 0, setup.algorithm.reads_costs)
        assert setup.meta.steps == (steps if setup.algorithm.adapts else 0)
    pooled, blind = {"cpo", "trpo", "pcpo", "cpo-lagrangian", "trpo-lagrangian"}, {"trpo", "meta-trpo"}
    assert found == {name: (name not in pooled, name not in blind) for name in ALGORITHMS}


@pytest.mark.parametrize("preset", presets())
def test_every_algorithm_takes_every_preset_and_all_that_it_says_it_reads(preset):
    for name in ALGORITHMS:
        config = Config.preset(preset, algorithm=name)
        reads = composed(config, 1).reads
        changed = {field: READ[field] for field in reads if field != "meta.learned"}
        tree = {section: {} for section in ("meta", "rule", "estimation")}
        for field, value in changed.items():
            section, _, last = field.partition(".")
            tree[section][last] = value
        composed(Config.preset(preset, algorithm=name, **tree), 1)
        with pytest.raises(ConfigError, match=f"is not for algorithm '{name}'; allowed with "):
            unread = next(field for field in READ if field not in reads)
            section, _, last = unread.partition(".")
            composed(Config.preset(preset, algorithm=name, **{section: {last: READ[unread]}}), 1)


def test_a_run_of_an_earlier_version_opens_with_settings_that_its_algorithm_does_not_read():
    config = Config.preset("bandit", algorithm="cpo", rule={"penalty": 3.0})
    with pytest.raises(ConfigError, match=r"rule\.penalty: 3\.0 is not for algorithm 'cpo'"):
        build(config)
    assert build(config, of_a_run=True).algorithm == build(Config.preset("bandit", algorithm="cpo")).algorithm


def test_what_a_preset_says_of_its_own_algorithm_is_not_said_of_others():
    own, other = Config.preset("point-circle"), Config.preset("point-circle", algorithm="cpo")
    assert (own.meta.meta_constraints, own.meta.constraint_on) == ("per_task", "every")
    assert (other.meta.meta_constraints, other.meta.constraint_on) == ("mean", "adapted")
    assert other.meta.episodes == own.meta.episodes
    build(other)  # cpo has no constraint on adapted policies, and refuses one that is asked for
    with pytest.raises(ConfigError, match=r"meta\.constraint_on: 'every' is not for algorithm 'cpo'"):
        build(Config.preset("point-circle", algorithm="cpo", meta={"constraint_on": "every"}))


@pytest.mark.parametrize("number", ["", "format = 2\n"])
def test_a_run_with_a_line_search_of_its_own_opens(tmp_path, number):
    path = tmp_path / "config.toml"
    path.write_text(f"{number}[inner]\nbacktrack_ratio = 0.5\nmax_kl = 0.2\n[outer]\nbacktracks = 3\n")
    assert Config.saved(path).inner.max_kl == 0.2
    path.write_text("[inner]\nbacktrack_ratio = 0.5\n")
    with pytest.raises(ConfigError, match=r"inner\.backtrack_ratio: unknown setting"):
        Config.load(path)


def test_a_setting_that_is_gone_is_unknown_in_settings_of_ones_own_and_left_out_of_an_old_run(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("[estimation]\ncost_target = 0.2\n")
    with pytest.raises(ConfigError, match=r"estimation\.cost_target: unknown setting; allowed: .*confidence"):
        Config.load(path)
    assert Config.saved(path).estimation.confidence == Config().estimation.confidence


def test_a_setting_with_another_name_by_now_is_named_with_the_new_one_and_read_in_a_run(tmp_path):
    path = tmp_path / "config.toml"
    old = '[meta]\nheld = "every"\n[inner]\ncaution = 0.3\n'
    path.write_text(old)
    with pytest.raises(ConfigError, match=r"meta\.held: is called meta\.constraint_on now"):
        Config.load(path)
    path.write_text("format = 2\n" + old)
    read = Config.saved(path)
    assert (read.meta.constraint_on, read.inner.objective_kl_fraction) == ("every", 0.3)


def test_a_run_with_hazards_of_an_earlier_version_learned_in_graded_costs(tmp_path):
    path = tmp_path / "config.toml"
    for env, was in (("car-circle-hazard", "graded"), ("point-circle", None)):
        path.write_text(f'format = 2\nenv = "{env}"\n')
        assert Config.saved(path).cost_kind == was
        path.write_text(f'format = 3\nenv = "{env}"\n')
        assert Config.saved(path).cost_kind is None
    assert build(Config.preset("car-circle-hazard")).env.cost_kind == "indicator"


def test_every_optional_setting_is_read_by_some_algorithm():
    assert set(READ) == set(OPTIONAL)
    assert {field for name in ALGORITHMS for field in ALGORITHMS[name](Parts()).reads} == set(OPTIONAL)


def test_every_number_has_a_range():
    assert {"iterations", "cost_limit", "hidden", "inner.max_kl", "estimation.outer_confidence"} <= set(RANGES)
    assert all(len(intervals) == 1 for intervals in RANGES.values()), RANGES


BAD = {
    "iterations": (-1, "[0, inf)"),
    "total_steps": (0, "[1, inf)"),
    "seed": (-1, "[0, 4294967295]"),
    "cost_limit": (-0.5, "[0, inf)"),
    "constraints": ("all", "'all' is not one of sum, each"),
    "initial_std": (0.0, "(0, inf)"),
    "hidden": ([16, 0], "0 is not in [1, inf)"),
    "checkpoint_every": ("often", "'often' is not a whole number"),
    "algorithm": ("ppo", "'ppo' is not one of meta-cpo, meta-trpo, cpo, trpo, pcpo"),
    "env": ("moon", "'moon' is not one of point-circle"),
    "physics": ("guess", "'guess' is not one of mujoco"),
    "meta": (5, "5 is not a section of settings"),
    "meta.steps": (-1, "-1 is not in [0, inf)"),
    "meta.tasks": (0, "[1, inf)"),
    "meta.episodes": (True, "True is not a whole number"),
    "meta.meta_gradient": ("third", "'third' is not one of exact, first_order, e_maml"),
    "meta.wings": (2, "unknown setting; allowed: tasks, steps"),
    "wings": (2, "unknown setting; allowed: preset_name, env"),
    "estimation.gamma": (1.5, "1.5 is not in (0, 1]"),
    "estimation.lam": (float("nan"), "nan is not in [0, 1]"),
    "estimation.cost_measure": ("mean", "'mean' is not one of episode, discounted"),
    "inner.max_kl": (0.0, "0.0 is not in (0, inf)"),
    "estimation.confidence": (1.0, "1.0 is not in (0, 1)"),
    "adaptation.tasks": (1.5, "1.5 is not a whole number"),
}


# Every optional setting at another value than its default.
READ = {
    "meta.meta_gradient": "first_order",
    "meta.meta_constraints": "per_task",
    "meta.constraint_on": "every",
    "meta.learned": ("scale",),
    "estimation.outer_confidence": 0.7,
} | {f"rule.{item.name}": getattr(RuleSettings(), item.name) + 0.5 for item in fields(RuleSettings)}


SENSELESS = {
    "meta.steps: 0 leaves algorithm 'meta-cpo' nothing to learn through": dict(meta={"steps": 0}),
    "meta.meta_constraints: 'per_task' is not for algorithm 'meta-trpo'; allowed with meta-cpo, meta-lagrangian": dict(
        algorithm="meta-trpo", meta={"meta_constraints": "per_task"}
    ),
    "meta.meta_constraints: 'per_task' is not for algorithm 'cpo'": dict(
        algorithm="cpo", meta={"meta_constraints": "per_task"}
    ),
    "meta.constraint_on: 'every' is not for algorithm 'safe-meta'": dict(
        algorithm="safe-meta", meta={"constraint_on": "every"}
    ),
    "meta.constraint_on: 'every' is not for the meta-gradient EMAML; allowed: adapted": dict(
        meta={"constraint_on": "every", "meta_gradient": "e_maml"}
    ),
    "meta.meta_gradient: 'first_order' is not for algorithm 'safe-meta'": dict(
        algorithm="safe-meta", meta={"meta_gradient": "first_order"}
    ),
    "meta.learned: ['scale'] is not for algorithm 'cpo'": dict(algorithm="cpo", meta={"learned": ["scale"]}),
    "meta.learned: ['multiplier'] is not for algorithm 'meta-cpo'": dict(meta={"learned": ["multiplier"]}),
    "rule.penalty: 3.0 is not for algorithm 'meta-cpo'; allowed with maml-penalty": dict(rule={"penalty": 3.0}),
    "estimation.outer_confidence: 0.7 is not for algorithm 'trpo'; allowed with meta-cpo, cpo, pcpo": dict(
        algorithm="trpo", estimation={"outer_confidence": 0.7}
    ),
    "constraints: 'each' is not for algorithm 'pcpo'": dict(
        preset="car-circle-hazard", algorithm="pcpo", constraints="each"
    ),
}


@pytest.mark.parametrize("message", SENSELESS)
def test_a_composition_that_makes_no_sense_is_refused_before_anything_compiles(message):
    settings = dict(SENSELESS[message])
    config = Config.preset(settings.pop("preset", SMOKE), **settings)
    with pytest.raises(ConfigError) as error:
        build(config)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", BAD)
def test_what_is_not_allowed_is_named_in_one_line(name, tmp_path):
    value, allowed = BAD[name]
    *sections, last = name.split(".")
    overrides = {sections[0]: {last: value}} if sections else {last: value}
    with pytest.raises(ConfigError) as error:
        Config.preset(SMOKE, **overrides)
    message = str(error.value)
    assert message.startswith(f"{name}: ")
    assert allowed in message
    assert "\n" not in message


# Numbers that lie in their range in double precision, but not in that of the programs, float32.
NOT_SINGLE = {
    "cost_limit": (1e39, "1e+39 is inf in float32"),
    "initial_std": (1e-50, "1e-50 is 0 in float32"),
    "rule.penalty": (1e-39, "1e-39 is 0 in float32"),  # subnormal: compiled programs take it for 0
    "inner.max_kl": (10**39, "is inf in float32"),
    "estimation.confidence": (0.99999999999, "0.99999999999 is 1 in float32"),
}


@pytest.mark.parametrize("name", NOT_SINGLE)
def test_numbers_are_in_their_range_in_single_precision(name):
    (value, words), tree = NOT_SINGLE[name], {}
    *sections, field = name.split(".")
    for section in sections:
        tree = tree.setdefault(section, {})
    whole = {sections[0]: tree} if sections else tree
    tree[field] = value
    with pytest.raises(ConfigError) as error:
        Config.preset("point-circle", **whole)
    assert str(error.value).startswith(f"{name}: ") and words in str(error.value)
    assert "\n" not in str(error.value) and RANGES[name][0] in str(error.value)


def test_the_ends_of_single_precision_are_allowed():
    config = Config.preset("point-circle", cost_limit=3e38, initial_std=1.2e-38, seed=4294967295, inner={"damping": 0})
    assert config.cost_limit == 3e38 and config.seed == 4294967295


def test_a_config_cannot_be_made_or_changed_to_a_bad_one():
    with pytest.raises(ConfigError, match=r"meta\.tasks: 0 is not in"):
        Config(meta=MetaSettings(tasks=0))
    with pytest.raises(ConfigError, match=r"cost_limit: -1\.0 is not in"):
        dataclasses.replace(Config(), cost_limit=-1.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().seed = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_unknown_preset_and_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match=r"preset: 'point-sphere' is not one of .*point-circle"):
        Config.preset("point-sphere")
    with pytest.raises(ConfigError, match=r"none\.toml: missing"):
        Config.load(tmp_path / "none.toml")
    (tmp_path / "marked.toml").write_bytes(b"\xef\xbb\xbfseed = 3\n")  # as Windows' editors save it
    assert Config.load(tmp_path / "marked.toml").seed == 3
    (tmp_path / "bad.toml").write_text("seed = = 1\n")
    with pytest.raises(ConfigError, match=r"bad\.toml: cannot be read"):
        Config.load(tmp_path / "bad.toml")


def test_a_network_takes_the_place_of_the_preset_s_layers(tmp_path):
    """It is saved without `hidden`, and read back as it was."""
    config = Config.preset("bandit", network="nets.py:Net").located(tmp_path)
    assert config.network == f"{tmp_path.resolve()}/nets.py:Net" and config.env == "bandit"
    config.save(tmp_path / "bandit.toml")
    assert "hidden" not in (tmp_path / "bandit.toml").read_text()
    assert Config.saved(tmp_path / "bandit.toml") == config


@pytest.mark.parametrize("hidden", ["[4]", "[32, 16]"])
def test_layers_beside_a_network_are_refused(hidden, tmp_path):
    file = tmp_path / "own.toml"
    file.write_text(f'env = "bandit"\nnetwork = "nets.py:Net"\nhidden = {hidden}\n')
    with pytest.raises(ConfigError, match=r"hidden: .* beside network; allowed: one of the two"):
        Config.load(file)
    with pytest.raises(ConfigError, match=r"hidden: \[8\] beside network 'nets.py:Net'; allowed: one of the two"):
        Config.preset("bandit", network="nets.py:Net", hidden=(8,))
    with pytest.raises(ConfigError, match=r"network: 'nets' is neither MODULE:CLASS nor FILE.py:CLASS"):
        Config.preset("bandit", network="nets")
