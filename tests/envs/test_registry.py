"""Environments by name, by module, by file; and what is said where there is none."""

import sys
from pathlib import Path

import pytest

from metacpo.envs import ENVIRONMENTS, PhysicsError, UnknownEnvironment, known, load, make, register_env
from metacpo.envs.families.bandit import Bandit
from metacpo.envs.physics import MujocoC

CRANE = Path(__file__).parents[2] / "examples" / "own_robot" / "crane.py"


@pytest.fixture
def registered():
    """A name that is registered for one test."""
    register_env("mine")(Bandit)
    yield "mine"
    del ENVIRONMENTS["mine"]


def test_a_registered_name_is_found_and_cannot_be_taken_twice(registered):
    assert isinstance(make(registered), Bandit) and known(registered)
    with pytest.raises(UnknownEnvironment, match=r"^env: 'mine' is registered already; take another name$"):
        register_env("mine")(Bandit)
    with pytest.raises(UnknownEnvironment, match="physics: 'mjx' is not for mine, which has no with_physics"):
        make(registered, physics="mjx")


def test_an_object_in_a_file_is_found_once_and_files_beside_it_are_importable(tmp_path):
    (tmp_path / "beside_it.py").write_text("from metacpo.envs.families.bandit import Bandit\n")
    (tmp_path / "mine.py").write_text("from beside_it import Bandit\nenv = Bandit()\nnumber = 3\n")
    path = list(sys.path)
    assert make(f"{tmp_path}/mine.py:env") is make(f"{tmp_path}/mine.py:env")
    assert sys.path == path
    with pytest.raises(UnknownEnvironment, match=r"mine.py:number is no Environment: int lacks action_size, "):
        make(f"{tmp_path}/mine.py:number")
    with pytest.raises(UnknownEnvironment, match=r"mine.py' has no attribute 'other'$"):
        make(f"{tmp_path}/mine.py:other")


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("no_such_module_here:env", "'no_such_module_here' cannot be imported .ModuleNotFoundError"),
        ("no/such/file.py:env", "file.py' cannot be imported .FileNotFoundError"),
        ("metacpo.envs.families.circle:Circle", "metacpo.envs.families.circle:Circle is no Environment: type"),
        ("os:abort", "'os' is a module of Python itself"),
        ("swing", "'swing' is not one of point-circle, .*, nor a MODULE:ATTRIBUTE"),
    ],
)
def test_what_is_not_there_is_one_line(reference, says):
    with pytest.raises(UnknownEnvironment, match=says) as error:
        make(reference)
    assert "\n" not in str(error.value)


def test_an_error_in_the_file_names_it(tmp_path):
    (tmp_path / "torn.py").write_text("x = (\n")
    (tmp_path / "fails.py").write_text("1 / 0\n")
    with pytest.raises(UnknownEnvironment, match=r"torn.py' cannot be imported .SyntaxError"):
        load(f"{tmp_path}/torn.py:env")
    for _ in range(2):  # a module that failed is not half there the next time
        with pytest.raises(UnknownEnvironment, match=r"fails.py' cannot be imported .ZeroDivisionError"):
            load(f"{tmp_path}/fails.py:env")


def test_what_fails_in_the_file_is_one_line(tmp_path):
    (tmp_path / "many.py").write_text("raise RuntimeError('simulator\\n  exploded')\n")
    (tmp_path / "leaves.py").write_text("import sys; sys.exit('no licence')\n")
    (tmp_path / "ours.py").write_text("from metacpo.envs import TaskDistribution\nTaskDistribution({}, {}, (-1.0,))\n")
    for name, says in (
        ("many.py", "cannot be imported (RuntimeError: simulator exploded)"),
        ("leaves.py", "cannot be imported (SystemExit: no licence)"),
    ):
        with pytest.raises(UnknownEnvironment) as error:
            load(f"{tmp_path}/{name}:env")
        assert str(error.value) == f"env: '{tmp_path}/{name}' {says}"
    with pytest.raises(UnknownEnvironment) as error:  # our own words need no other: they name the field
        load(f"{tmp_path}/ours.py:env")
    assert str(error.value) == f"env: '{tmp_path}/ours.py': cost_limit: -1.0 is not a number in [0, 3.40282e+38]"


def test_what_fails_where_a_name_is_made_is_one_line(monkeypatch):
    class Entry:
        name = "theirs"

        def load(self):
            raise ImportError("no such\nlibrary")

    monkeypatch.setattr("metacpo.envs.registry.entry_points", lambda group: [Entry()])
    with pytest.raises(UnknownEnvironment, match=r"^env: 'theirs' cannot be made \(ImportError: no such library\)$"):
        make("theirs")


def test_an_installed_package_brings_its_own_by_entry_point(monkeypatch):
    class Entry:
        name = "theirs"

        def load(self):
            return Bandit()

    monkeypatch.setattr("metacpo.envs.registry.entry_points", lambda group: [Entry()])
    assert known("theirs") and isinstance(make("theirs"), Bandit)


def test_physics_moves_a_robot_of_ones_own_to_another_engine():
    pytest.importorskip("mujoco.mjx")
    env = make(f"{CRANE}:env", physics="mjx")
    assert not isinstance(env.physics, MujocoC) and env.cost_names == ("speed", "swing")  # pyright: ignore
    with pytest.raises(PhysicsError, match="'bullet' is not one of"):
        make(f"{CRANE}:env", physics="bullet")
