"""A run folder whose settings were edited after its training."""

from dataclasses import replace

from test_kill import TINY

from metacpo.training import checkpoint, runs
from metacpo.training.setup import build
from metacpo.training.state import init_state


def test_settings_that_were_edited_since_are_said(tmp_path, capsys):
    """The checkpoint holds what it was trained under; one without it, of an older version, is taken as it is."""
    TINY.save(tmp_path / "config.toml")
    checkpoint.save(tmp_path, init_state(build(TINY), 0), TINY)
    runs.open_run(tmp_path)
    assert capsys.readouterr().err == ""
    edited = replace(TINY, algorithm="pcpo", inner=replace(TINY.inner, max_kl=0.5))
    edited.save(tmp_path / "config.toml")
    assert runs.open_run(tmp_path, physics="mjx").config.algorithm == "pcpo"
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "config.toml: is not what the checkpoint of iteration 0 was trained under: " in said
    )
    assert said.rstrip().endswith(f"algorithm = 'pcpo' (then 'cpo'), inner.max_kl = 0.5 (then {TINY.inner.max_kl})")
    checkpoint.save(tmp_path, init_state(build(TINY), 0))
    runs.open_run(tmp_path)
    assert capsys.readouterr().err == ""
