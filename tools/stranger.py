"""Ten functions of the package, drawn at random: is each where its name says?

    python tools/stranger.py SEED

Prints file and line, the name, and the first line of the docstring. Reads the source alone; nothing is imported.
"""

import ast
import random
import sys
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "metacpo"
COUNT = 10


class Function(NamedTuple):
    """A function or method, by its place under the package folder."""

    place: str
    name: str
    about: str


def functions(package: Path) -> list[Function]:
    """Every function and method of a package in the order of its files, those inside functions left out."""
    found = []
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package.parent)
        found += [Function(f"{place}:{node.lineno}", name, about(node)) for name, node in _defined(path)]
    return found


def about(node: ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """The first line of a function's docstring, or that there is none."""
    return (ast.get_docstring(node) or "(no docstring)").splitlines()[0]


def _defined(path: Path) -> list[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The functions of a module and the methods of its classes, each with its name."""
    found = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        members = node.body if isinstance(node, ast.ClassDef) else [node]
        owner = f"{node.name}." if isinstance(node, ast.ClassDef) else ""
        found += [(owner + m.name, m) for m in members if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)]
    return found


def drawn(seed: int, package: Path = PACKAGE) -> list[Function]:
    """COUNT functions without repetition; the same ones for the same seed and source."""
    return random.Random(seed).sample(functions(package), COUNT)


def main(args: list[str]) -> int:
    if len(args) != 1 or not args[0].isdecimal():
        print("usage: python tools/stranger.py SEED, a whole number from 0 on", file=sys.stderr)
        return 2
    for function in drawn(int(args[0])):
        print(f"{function.place}\n    {function.name}\n    {function.about}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
