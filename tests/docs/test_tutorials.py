"""The code of the tutorials runs as it stands, and does what the pages say of it.

The quickstart and the report's page train and adapt under the same settings: what one compiled, the other finds.
"""

import shlex
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from pages import DOCS, REPO, code

from metacpo.cli import main as cli
from metacpo.envs.registry import ENVIRONMENTS
from metacpo.solver import Case


@pytest.fixture
def follow(tmp_path, monkeypatch):
    """Run a page's code from a folder that has the repository's examples; gives the names that the code made."""
    (tmp_path / "examples").symlink_to(REPO / "examples")
    monkeypatch.chdir(tmp_path)
    registered = dict(ENVIRONMENTS)

    def run(name: str) -> dict:
        scope: dict = {"__name__": "tutorial"}
        for language, text in code(DOCS / f"{name}.md"):
            if language == "python":
                exec(compile(text, f"{name}.md", "exec"), scope)
                continue
            for line in text.splitlines():
                verb, *args = shlex.split(line)
                assert verb == "metacpo" and cli.main(args) == 0, line
        return scope

    yield run
    ENVIRONMENTS.clear()
    ENVIRONMENTS.update(registered)


@pytest.mark.slow
def test_the_solver_alone(follow):
    names = follow("tutorials/solver")
    assert names["solution"].case == Case.BINDING and names["solution"].nu > 0
    np.testing.assert_allclose(names["stationary"], 0, atol=1e-5)
    np.testing.assert_allclose(names["room"], 0, atol=1e-6)
    np.testing.assert_allclose(names["size"], 0.02, rtol=1e-5)
    free = jnp.array([-0.2, 0.0])  # the step that the page says would be taken without the constraint
    np.testing.assert_allclose(names["c"] + names["b"] @ free, 0.15, rtol=1e-6)
    assert names["broken"].case == Case.INFEASIBLE
    assert [int(case) for case in names["cases"]] == sorted((int(case) for case in names["cases"]), reverse=True)
    assert {Case.SLACK, Case.BINDING, Case.RECOVERING, Case.INFEASIBLE} <= {Case(int(case)) for case in names["cases"]}
    np.testing.assert_allclose(names["slope"], -names["solution"].lam, rtol=1e-4)
    assert names["large"].case == Case.UNCONSTRAINED and names["large"].residual < 1e-5


@pytest.mark.slow
def test_the_quickstart(follow):
    names = follow("quickstart")
    assert [row.step for row in names["adapted"].curve] == [0, 1]
    assert names["before"].shape == names["after"].shape == (2,) and np.any(names["before"] != names["after"])


@pytest.mark.slow
def test_your_robot(follow):
    names = follow("tutorials/own_robot")
    assert names["state"].truncated and not names["state"].terminated
    assert names["run"].finished and names["run"].env_steps == 64


@pytest.mark.slow
def test_reading_a_report(follow):
    names = follow("tutorials/report")
    assert len(names["metrics"]) == 2 and len(names["of_step"]) == 1
    assert Path("runs/tiny/report.html").exists()


def test_your_algorithm(follow):
    blind = follow("tutorials/algorithm")["blind_inside"]
    assert blind.adapts and not blind.inner.step.limits and blind.outer.step.limits
