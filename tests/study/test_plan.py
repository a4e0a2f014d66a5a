"""A study's file as runs, and what is wrong with it in one line."""

from pathlib import Path

import pytest

from metacpo.config.schema import Config, ConfigError
from metacpo.study.plan import read_study

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
GOOD = """
seeds = [3, 4]
[[variants]]
name = "one"
preset = "bandit"
meta = { steps = 1 }
[[variants]]
name = "two"
preset = "navigation"
seeds = [7]
"""


def test_variants_with_their_seeds(tmp_path):
    (tmp_path / "study.toml").write_text(GOOD)
    runs = read_study(tmp_path / "study.toml")
    assert [(run.variant, run.config.seed) for run in runs] == [("one", 3), ("one", 4), ("two", 7)]
    assert runs[1].config == Config.preset("bandit", seed=4, meta={"steps": 1})
    assert runs[2].config == Config.preset("navigation", seed=7)
    assert not any(run.tuning for run in runs)
    (tmp_path / "study.toml").write_text("tuning = true\n" + GOOD)
    assert all(run.tuning for run in read_study(tmp_path / "study.toml"))


@pytest.mark.parametrize("path", sorted(BENCHMARKS.glob("*.toml")), ids=lambda path: path.stem)
def test_our_own_studies(path):
    assert read_study(path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[3, 4]", "[3, 3]", "seeds: a seed is there twice"),
        ("[3, 4]", "[3, -1]", "seeds: -1 is not in [0, 4294967295]"),
        ("[3, 4]", "5", "seeds: 5 is not a list of whole numbers"),
        ("[7]", "[]", "variants[1].seeds: [] is not a list of whole numbers"),
        ("seeds = [3, 4]", "sedes = [3, 4]", "'sedes': unknown; allowed: seeds, tuning, variants"),
        ("seeds = [3, 4]", 'seeds = [3, 4]\ntuning = "yes"', "tuning: 'yes' is not true or false"),
        ('"two"', '"one"', "variants[1].name: one is there twice"),
        ('"two"', '"../two"', "variants[1].name: '../two' is not a name of letters, digits and ._-"),
        ("steps = 1", "steps = -1", "variants[0] (one): meta.steps: -1 is not in [0, inf)"),
        ("meta = {", "seed = 1\nmeta = {", "variants[0] (one): seed: not for a variant to say; allowed: seeds, preset"),
        ('preset = "bandit"', "", "variants[0] (one): preset: None is not a name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, message):
    assert old in GOOD
    (tmp_path / "study.toml").write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ConfigError) as error:
        read_study(tmp_path / "study.toml")
    assert str(error.value) == f"{tmp_path / 'study.toml'}: {message}"
