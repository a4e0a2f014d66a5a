"""Is the wheel that would be published the package and nothing else, and does it work where it says that it does?

    python tools/wheel.py [--folder DIR] [newest] [lowest]

Builds the wheel, looks at its contents, and installs it into empty environments, once with the newest dependencies
that pyproject.toml allows and once with the lowest. In each it runs the tests of `QUICK`, which need nothing else than
pytest, hypothesis and beartype, and trains two tasks by the command line. Exits with 1 at the first thing that fails.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
PACKAGE = REPO / "src" / "metacpo"
TOOLS = ("pytest", "hypothesis", "beartype")
QUICK = (
    "tests/config/test_schema.py",
    "tests/envs/test_tasks.py",
    "tests/cli/test_main.py",
    "tests/training/test_checkpoint.py",
    "tests/training/test_metrics.py",
    "tests/envs/test_bandit.py",
    "tests/envs/test_mujoco_c.py",
    "tests/envs/test_navigation.py",
    "tests/solver/test_closed_form.py",
    "tests/solver/test_line_search.py",
    "tests/report",
)
# What no module imports: data, and the marker that makes type checkers read the annotations.
NEEDED = ("presets/bandit.toml", "envs/assets/point.xml", "report/page.css", "py.typed")
BANDIT = "train bandit --iterations 2 --checkpoint-every 1 --meta.tasks 2 --meta.steps 1 --meta.episodes 4"
TRAININGS = (f"{BANDIT} --adaptation.tasks 2 --adaptation.steps 1 --adaptation.episodes 4", "train point-circle-smoke")


def run(*command: str | Path, cwd: Path = REPO) -> str:
    """The command's output; exits with what it said if it fails. The caller's own packages stay out of it."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nwheel: failed with {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def build(folder: Path) -> Path:
    """The wheel, made as for publishing."""
    run(sys.executable, "-m", "pip", "wheel", REPO, "--no-deps", "--quiet", "--wheel-dir", folder)
    (wheel,) = folder.glob("metacpo-*.whl")
    return wheel


def check_contents(names: Sequence[str]) -> None:
    """The wheel holds the package's files, all of them, and its metadata; nothing else."""
    strange = [name for name in names if not re.match(r"metacpo(-[\w.]+\.dist-info)?/", name)]
    strange += [name for name in names if "__pycache__" in name or Path(name).name.startswith(".")]
    if strange:
        sys.exit(f"wheel: holds what is not the package's: {', '.join(strange)}")
    files = {str(path.relative_to(PACKAGE.parent)) for path in PACKAGE.rglob("*") if path.is_file()}
    ours = {name for name in files if "__pycache__" not in name}
    if ours ^ {name for name in names if name.startswith("metacpo/")}:
        sys.exit(f"wheel: differs from the source folder in {', '.join(sorted(ours ^ set(names)))}")
    for needed in NEEDED:
        if f"metacpo/{needed}" not in names:
            sys.exit(f"wheel: metacpo/{needed} is missing")


def lowest(requirements: Sequence[str]) -> list[str]:
    """Constraints that pin every requirement to its lower bound."""
    bounds = [re.fullmatch(r"([\w.-]+)>=([\w.]+)(,.*)?", requirement.replace(" ", "")) for requirement in requirements]
    return [f"{bound[1]}=={bound[2]}" for bound in bounds if bound]


def try_out(wheel: Path, folder: Path, constraints: Sequence[str]) -> str:
    """Install the wheel into an empty environment and use it there; the versions found."""
    (folder / "environment").mkdir(parents=True)
    (folder / "constraints.txt").write_text("\n".join(constraints) + "\n")
    venv.create(folder / "environment", with_pip=True)
    python = folder / "environment" / "bin" / "python"
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--quiet", wheel, *TOOLS, "--constraint", folder / "constraints.txt")
    run(*pip, "check")
    where = run(python, "-c", "import metacpo; print(metacpo.__file__)", cwd=folder).strip()
    if not Path(where).is_relative_to(folder):
        sys.exit(f"wheel: {where} was tested instead of the wheel")
    # Warnings are the business of the pinned environment: here other versions speak, newer than this one.
    tests = run(python, "-m", "pytest", "--quiet", "-W", "default", "-p", "no:cacheprovider", *QUICK)
    print(tests.splitlines()[-1])
    for number, training in enumerate(TRAININGS):
        command = folder / "environment" / "bin" / "metacpo"
        run(command, *training.split(), "--run-dir", folder / f"run{number}", cwd=folder)
    return run(*pip, "freeze")


def main() -> int:
    options = argparse.ArgumentParser()
    options.add_argument("--folder", type=Path, help="where to build and to install; a temporary folder if not given")
    options.add_argument("which", nargs="*", default=["newest", "lowest"], help="newest, lowest or both")
    args = options.parse_args()
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    names = [re.split(r"[<>=]", requirement)[0].lower() for requirement in project["dependencies"]]
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        wheel = build(folder / "wheel")
        check_contents(zipfile.ZipFile(wheel).namelist())
        print(f"{wheel.name}: the package and its metadata, nothing else")
        for which in args.which:
            constraints = lowest(project["dependencies"]) if which == "lowest" else []
            frozen = try_out(wheel, folder / which, constraints).splitlines()
            versions = [line for line in frozen if line.partition("==")[0].lower() in (*names, "jaxlib")]
            print(f"{which}: works with {', '.join(versions)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
