"""The example of docs/solver.md runs as it stands, and does what the page says."""

import re
from pathlib import Path

import jax.numpy as jnp

PAGE = Path(__file__).parents[2] / "docs" / "solver.md"


def test_the_example_of_the_page_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    scope: dict = {}
    exec(code, scope)
    solution, slope = scope["solution"], scope["slope"]
    assert len(code.strip().splitlines()) <= 27 and capsys.readouterr().out
    assert jnp.all(solution.active) and solution.case == 1 and jnp.all(solution.nu > 0)
    assert jnp.isfinite(slope) and slope < 0  # a larger region lowers the loss
    assert solution.stats.error < 0.1
