"""tools/stranger.py: which functions it finds, and that a seed decides what it prints."""

import pytest
import stranger
from pages import REPO

SOURCE = '''
"""A module."""

def first():
    """What it is.

    Why.
    """
    def inner(): ...


class Thing:
    """A class."""

    size = 1

    def method(self): ...
'''


def test_functions_and_methods_are_found(tmp_path):
    package = tmp_path / "pack"
    (package / "part").mkdir(parents=True)
    (package / "part" / "module.py").write_text(SOURCE)
    first, method = stranger.functions(package)
    assert first == ("pack/part/module.py:4", "first", "What it is.")
    assert method == ("pack/part/module.py:17", "Thing.method", "(no docstring)")


def test_a_seed_draws_ten_different_ones(capsys):
    assert stranger.main(["7"]) == 0
    first = capsys.readouterr().out
    assert stranger.main(["7"]) == 0 and capsys.readouterr().out == first
    assert stranger.main(["8"]) == 0 and capsys.readouterr().out != first
    assert len(set(stranger.drawn(7))) == 10 and len(first.splitlines()) == 30
    place, line = first.splitlines()[0].split(":")
    assert (REPO / "src" / place).read_text().splitlines()[int(line) - 1].lstrip().startswith(("def ", "async def "))


@pytest.mark.parametrize("args", [[], ["x"], ["-1"], ["1", "2"]])
def test_anything_but_one_seed_is_refused(args, capsys):
    assert stranger.main(args) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and "SEED" in captured.err and not captured.out
