"""Algorithms by name, by module and by file; and what is said where there is none."""

import pytest

import metacpo
from metacpo.algorithms import Algorithm, CPOStep, Parts, PolicyUpdate, TRPOStep
from metacpo.algorithms.registry import ALGORITHMS, CompositionError, compose, known
from metacpo.algorithms.trust_region import TrustRegionSettings

BLIND = Algorithm(PolicyUpdate(step=TRPOStep()), PolicyUpdate(), adapts=False)
FILE = "from metacpo.algorithms import Algorithm, PolicyUpdate, TRPOStep, register_algorithm\n"


@pytest.fixture(autouse=True)
def as_before():
    before = dict(ALGORITHMS)
    yield
    ALGORITHMS.clear()
    ALGORITHMS.update(before)


def test_an_algorithm_is_registered_once():
    metacpo.register_algorithm("mine", BLIND)
    metacpo.register_algorithm("mine-too", lambda parts: BLIND)
    assert known("mine") and compose("mine-too", Parts(), 1) is BLIND
    for name in ("mine", "cpo"):
        with pytest.raises(CompositionError, match=f"^algorithm: '{name}' is registered already; take another name$"):
            metacpo.register_algorithm(name, BLIND)
    for name in ("", "../mine", "a:b", "two words"):
        with pytest.raises(CompositionError, match="is not a name of letters, digits and"):
            metacpo.register_algorithm(name, BLIND)


def test_an_algorithm_as_it_is_moves_in_the_regions_of_the_settings():
    metacpo.register_algorithm("mine", BLIND)
    parts = Parts(TrustRegionSettings(max_kl=0.3), TrustRegionSettings(max_kl=0.7))
    made = compose("mine", parts, 1)
    assert (made.inner.region.max_kl, made.outer.region.max_kl) == (0.3, 0.7)
    assert isinstance(made.inner.step, TRPOStep) and isinstance(made.outer.step, CPOStep)


def test_a_file_has_an_algorithm_or_a_registered_composition(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(
        FILE + "fixed = Algorithm(PolicyUpdate(step=TRPOStep()), PolicyUpdate(), most_constraints=2)\n"
        "def mine(parts): return fixed\n"
        "def other(parts): raise SystemError('it was called')\n"
        "register_algorithm('own', mine)\n"
    )
    for name in (f"{path}:fixed", f"{path}:mine", "own"):
        assert isinstance(compose(name, Parts(), 2).inner.step, TRPOStep)
        with pytest.raises(CompositionError, match=r"constraints: 'each' is not for algorithm '.*', which takes 2 of"):
            compose(name, Parts(), 3)
    with pytest.raises(CompositionError, match=r"own\.py:other is a function, neither an Algorithm nor a registered"):
        compose(f"{path}:other", Parts(), 1)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("register_algorithm('cpo', print)", "own.py': algorithm: 'cpo' is registered already; take another name"),
        ("1 / 0", "own.py' cannot be imported (ZeroDivisionError: division by zero)"),
        ("", "own.py' has no attribute 'mine'"),
        ("mine = 3", "own.py:mine is a int, neither an Algorithm nor a registered composition"),
        ("mine = Algorithm(PolicyUpdate(), PolicyUpdate(), reads=('rule.wings',))", "reads ['rule.wings']; allowed:"),
        ("mine = lambda parts: 1 / 0\nregister_algorithm('own', mine)", "cannot be composed (ZeroDivisionError:"),
        ("mine = lambda parts: 3\nregister_algorithm('own', mine)", "makes a int, not a metacpo Algorithm"),
        (
            "mine = Algorithm(PolicyUpdate(), PolicyUpdate(), constraint_on='none')",
            "meta.constraint_on: 'none' is not for the meta-gradient Exact; allowed: adapted, every, start",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path, source, says):
    (tmp_path / "own.py").write_text(FILE + source + "\n")
    with pytest.raises(CompositionError) as error:
        compose(f"{tmp_path}/own.py:mine", Parts(), 1)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_an_installed_package_brings_its_own_by_entry_point(monkeypatch):
    class Entry:
        name = "theirs"

        def load(self):
            return BLIND

    monkeypatch.setattr("metacpo.algorithms.registry.entry_points", lambda group: [Entry()])
    assert known("theirs") and isinstance(compose("theirs", Parts(), 1).inner.step, TRPOStep)
    with pytest.raises(CompositionError, match=r"not one of meta-cpo, .*, theirs, nor a MODULE:ATTRIBUTE"):
        compose("ours", Parts(), 1)
