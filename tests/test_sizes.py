"""A file is read in a sitting: its length, that of its functions, and few words to the type checker."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "metacpo"
FILES = sorted(PACKAGE.rglob("*.py"))
FILE_LINES, FUNCTION_LINES, PARAMETERS, IGNORES = 250, 50, 8, 3


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_is_read_in_one_sitting(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES, f"{node.name}: {lines} lines"
            names = [item.arg for item in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= PARAMETERS, node.name


def test_the_type_checker_is_told_to_look_away_three_times_at_most():
    found = [
        line for path in FILES for line in path.read_text(encoding="utf-8").splitlines() if "pyright: ignore" in line
    ]
    assert len(found) <= IGNORES, found
