"""The example of our environments as Gymnasium's."""

import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "examples" / "as_gymnasium" / "episodes.py"


def test_the_controller_runs_round_the_circle_and_pays_for_the_walls(capsys):
    spec = importlib.util.spec_from_file_location("episodes", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    earned, paid, limit = module.main()
    assert earned > 10 and limit == 25 and 25 < paid <= 500
    assert capsys.readouterr().out == f"metacpo/PointCircle-v0: return {earned:.1f}, cost {paid:.1f} (limit 25)\n"
