"""`metacpo render`: the episodes are the policy's, every file is whole, and no film that fails takes anything along."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from metacpo.adaptation.evaluate import evaluate
from metacpo.cli import main as cli
from metacpo.config.schema import Config
from metacpo.envs.physics.camera import NoRenderer
from metacpo.render import Request, episodes, films, video
from metacpo.render.episodes import record_all
from metacpo.rollout import rollout
from metacpo.training import checkpoint
from metacpo.training.runs import open_run
from metacpo.training.setup import build
from metacpo.training.state import init_state

SMALL = {"tasks": 2, "steps": 1, "episodes": 2}
RIDGE = {"critic": "ridge", "cost_critic": "ridge"}  # compiles sooner


def run_of(folder, preset):
    """A run whose policy has not learned anything."""
    config = Config.preset(preset, hidden=[4], adaptation=SMALL, estimation=RIDGE)
    config.save(folder / "config.toml")
    checkpoint.save(folder, init_state(build(config), config.seed))
    return open_run(folder)


def evaluated(run):
    return run, evaluate(run.setup, run.state, run.config.adaptation, ("held-out",), seed=0)


@pytest.fixture(scope="module")
def flat_run(tmp_path_factory):
    return evaluated(run_of(tmp_path_factory.mktemp("navigation"), "navigation"))


@pytest.fixture(scope="module")
def solid_run(tmp_path_factory):
    return evaluated(run_of(tmp_path_factory.mktemp("circle"), "point-circle-smoke"))


def emptied(pair):
    for path in (pair[0].path / "render").glob("*"):
        path.unlink()
    return pair


@pytest.fixture
def flat(flat_run):
    """A run without bodies, 100 steps an episode, and its evaluation; nothing rendered yet."""
    return emptied(flat_run)


@pytest.fixture
def solid(solid_run):
    """A run with bodies, and its evaluation; nothing rendered yet."""
    return emptied(solid_run)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(video, "MOST_FRAMES", 4)


@pytest.fixture
def no_opengl(monkeypatch):
    def refuse(*args):
        raise NoRenderer("no OpenGL without a screen (egl: no driver)")

    monkeypatch.setattr(films, "Camera", refuse)


def files(run):
    return sorted(path.name for path in (run.path / "render").iterdir())


def filmed(pair):
    """Names of what was rendered, and what was complained of."""
    said = []
    told = [path.name for path in films.render(*pair, Request("gif"), said.append)]
    assert sorted(told) == files(pair[0])
    return told, said


@pytest.mark.parametrize("preset", ["navigation", pytest.param("tabular", marks=pytest.mark.slow)])
def test_the_recorded_episode_is_the_rollout_of_its_key(preset, tmp_path):
    run = run_of(tmp_path, preset)
    setup, state, keys = run.setup, run.state, jax.random.split(jax.random.key(5), 1)
    tasks = setup.tasks.sample_batch(jax.random.key(1), 1, "held-out")
    both = jnp.broadcast_to(state.theta, (1, 2, setup.policy.size))
    states, valid = episodes._record(setup, state, both, tasks, keys)
    task = jax.tree.map(lambda x: x[0], tasks)
    expected = jax.jit(lambda key: rollout(setup.env, setup.policy, state.theta, state.normaliser, task, key, 1))(
        keys[0]
    )
    np.testing.assert_allclose(states.reward[0, 0, 1:], expected.reward[:, 0], atol=1e-5)
    np.testing.assert_allclose(setup.env.position(states)[0, 0, 1:], expected.position[:, 0], atol=1e-5)
    np.testing.assert_array_equal(valid[0, 0], expected.valid[:, 0] > 0)


@pytest.mark.slow
def test_episodes_begin_alike_and_count_what_the_limit_limits(flat):
    run, evaluation = flat
    result = evaluation.splits[0]
    shown = record_all(run.setup, run.state, result, seed=0)
    assert [(e.number, e.stage) for e in shown] == [(n, s) for n in result.drawn for s in ("before", "after")]
    for before, after in zip(shown[::2], shown[1::2], strict=True):
        np.testing.assert_array_equal(before.position[0], after.position[0])
        assert before.task.params["goal_x"] == result.tasks.params["goal_x"][before.number]
    for episode in shown:
        assert episode.steps == 100
        assert (episode.total[0], episode.cost[0, 0]) == (0.0, 0.0)
        assert episode.cost[-1, 0] == episode.unsafe.sum(), "navigation: 1 for each step in a hazard"
        assert episode.limit == result.tasks.cost_limit[episode.number]


def test_films_from_above_and_the_paths(flat):
    told, said = filmed(flat)
    assert said == []
    stems = [f"held-out-task{i}-{stage}-top-down.gif" for i in (0, 1) for stage in ("after", "before")]
    assert sorted(told) == ["held-out-paths.png", *stems]
    for name in stems:
        with Image.open(flat[0].path / "render" / name) as film:
            assert (film.size, film.n_frames) == ((480, 568), 5)


def test_an_environment_without_positions_is_said_in_a_line(flat, monkeypatch):
    monkeypatch.setattr(films, "has_position", lambda env: False)
    assert filmed(flat) == ([], ["no paths and no videos from above: the environment has no `position`"])


@pytest.mark.slow
def test_camera_films_beside_those_from_above(solid):
    told, said = filmed(solid)
    if said and said[0].startswith("no camera videos"):
        pytest.skip(said[0])
    assert said == []
    with Image.open(solid[0].path / "render" / "held-out-task0-after.gif") as film:
        assert (film.size, film.n_frames) == ((640, 536), 5)
    assert len(told) == 1 + 4 + 4


@pytest.mark.slow
def test_without_opengl_one_line_says_so_and_the_rest_is_there(solid, no_opengl):
    told, said = filmed(solid)
    assert said == ["no camera videos: no OpenGL without a screen (egl: no driver)"]
    assert len(told) == 1 + 4 and all("top-down" in name or "paths" in name for name in told)


def test_the_verb_uses_its_options_and_a_failing_encoder_is_a_line(flat, monkeypatch, capsys):
    run, evaluation = flat
    calls = []

    def evaluate(setup, state, settings, splits, seed, cost_limit, task, say):
        calls.append((settings.tasks, splits, seed, cost_limit, float(task.params["goal_x"])))
        return evaluation

    def broken(path, frames, fps):
        next(iter(frames))
        path.write_bytes(b"half")
        if "before" in path.name:
            raise OSError("disk full\nreally")

    monkeypatch.setattr("metacpo.training.runs.open_run", lambda path: run)
    monkeypatch.setattr("metacpo.adaptation.evaluate.evaluate", evaluate)
    monkeypatch.setattr(video, "_write_gif", broken)
    options = '--format gif --cost-limit 3 --seed 4 --task {"goal_x":1.25}'
    assert cli.main(["render", str(run.path), *options.split()]) == 0
    assert calls == [(1, ("held-out",), 4, 3.0, 1.25)]
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 2
    assert all("before-top-down.gif: not made (OSError: disk full really)" in line for line in lines)
    assert files(run) == ["held-out-paths.png"] + [f"held-out-task{i}-after-top-down.gif" for i in (0, 1)]
    assert all(str(run.path / "render" / name) in captured.out for name in files(run))


CHOICES = [(None, True, ".mp4"), (None, False, ".gif"), ("mp4", True, ".mp4"), ("gif", True, ".gif")]


@pytest.mark.parametrize(("asked", "installed", "suffix"), CHOICES)
def test_mp4_where_ffmpeg_is_installed(monkeypatch, asked, installed, suffix):
    monkeypatch.setattr(films, "has_ffmpeg", lambda: installed)
    assert films._suffix(asked, pytest.fail) == suffix


def test_mp4_asked_for_without_ffmpeg_becomes_gif_and_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(films, "has_ffmpeg", lambda: False)
    said = []
    assert films._suffix("mp4", said.append) == ".gif"
    assert len(said) == 1 and "metacpo[video]" in said[0]
