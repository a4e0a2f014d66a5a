"""The example of our environments as Gymnasium's."""


def test_the_controller_runs_round_the_circle_and_pays_for_the_walls(example, capsys):
    earned, paid, limit = example("as_gymnasium/episodes.py").main()
    assert earned > 10 and limit == 25 and 25 < paid <= 500
    assert capsys.readouterr().out == f"metacpo/PointCircle-v0: return {earned:.1f}, cost {paid:.1f} (limit 25)\n"
