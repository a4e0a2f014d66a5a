"""Imports point downward: the layers of the design, checked on the source itself."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "metacpo"
LAYERS = {
    "solver": 0,
    "runtime": 0,
    "run_folder": 0,
    "statistics": 0,
    "shapes": 0,
    "envs": 1,
    "gymnasium_ids": 1,
    "policies": 1,
    "rollout": 2,
    "estimation": 3,
    "algorithms": 4,
    "config": 5,
    "training": 6,
    "adaptation": 7,
    "study": 8,
    "report": 8,
    "render": 8,
    "cli": 9,
    "__init__": 10,
}
# Pairs that must never meet although their layers would allow it: (importer, imported).
NEVER = {("algorithms", "envs"), ("envs", "solver"), ("policies", "solver"), ("rollout", "solver")}
REPORT_MAY_IMPORT = {"report", "run_folder", "shapes", "statistics", "training.health", "training.tags"}
MUJOCO_ONLY_IN = "envs/physics/"


def imported(path: Path) -> set[str]:
    """Full dotted names that a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def part(relative: Path) -> str:
    return relative.parts[0].removesuffix(".py")


FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("relative", FILES, ids=str)
def test_imports_point_downward(relative):
    here = part(relative)
    assert here in LAYERS, f"{relative} has no layer: add it here and to the design"
    for name in imported(PACKAGE / relative):
        pieces = name.split(".")
        if pieces[0] == "mujoco":
            assert str(relative).startswith(MUJOCO_ONLY_IN), f"{relative} imports mujoco"
        if pieces[0] != "metacpo" or len(pieces) == 1 or pieces[1] not in LAYERS:
            continue
        there = pieces[1]
        assert LAYERS[there] <= LAYERS[here], f"{relative} (layer {LAYERS[here]}) imports {name}"
        assert (here, there) not in NEVER, f"{relative} must not import {name}"
        if here == "report":
            assert {there, ".".join(pieces[1:3])} & REPORT_MAY_IMPORT, (
                f"{relative} must read run folders only, imports {name}"
            )


def test_the_report_and_the_solver_stand_alone():
    for relative in FILES:
        roots = {name.split(".")[0] for name in imported(PACKAGE / relative)}
        if part(relative) == "report":
            assert "jax" not in roots, relative
        if part(relative) == "solver":
            assert roots <= {
                "jax",
                "numpy",
                "jaxtyping",
                "equinox",
                "lineax",
                "metacpo",
                "enum",
                "collections",
                "typing",
                "dataclasses",
            }


def test_no_cycles_between_modules():
    """Within a layer imports are allowed as long as they form no circle."""
    edges = {}
    for relative in FILES:
        name = ".".join(("metacpo", *relative.with_suffix("").parts)).removesuffix(".__init__")
        targets = imported(PACKAGE / relative)
        edges[name] = {
            t for t in (n if PACKAGE_MODULES.get(n) else n.rpartition(".")[0] for n in targets) if t in PACKAGE_MODULES
        }
    seen, active = set(), set()

    def visit(module):
        assert module not in active, f"import cycle through {module}"
        if module in seen:
            return
        active.add(module)
        for target in edges.get(module, ()):
            if target != module:
                visit(target)
        active.remove(module)
        seen.add(module)

    for module in edges:
        visit(module)


PACKAGE_MODULES = {
    ".".join(("metacpo", *relative.with_suffix("").parts)).removesuffix(".__init__"): True for relative in FILES
}
