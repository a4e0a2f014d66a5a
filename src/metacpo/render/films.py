"""Everything that `metacpo render` writes into RUN_DIR/render, file by file."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from metacpo.adaptation.outcomes import Evaluation
from metacpo.envs.base import Environment
from metacpo.envs.physics.camera import Camera, NoRenderer
from metacpo.envs.scene import Embodied
from metacpo.envs.wrapped import has_position, innermost
from metacpo.estimation.measures import limited
from metacpo.render import looks
from metacpo.render.above import Above
from metacpo.render.episodes import Episode, record_all
from metacpo.render.overlay import captioned, task_words
from metacpo.render.plots import write_paths
from metacpo.render.video import Format, has_ffmpeg, pace, shown_steps, write_video
from metacpo.report.floor import STAGE, View, view_of
from metacpo.training.runs import Run
from metacpo.training.setup import TrainingSetup

FOLDER = "render"
ABOVE = 480  # pixels; even, as encoders want
CAMERA = (640, 448)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Request:
    """How to film. video: None takes mp4 where ffmpeg is at hand, else gif. seed: of the episodes."""

    video: Format | None = None
    seed: int = 0


def render(run: Run, evaluation: Evaluation, request: Request, complain: Say) -> Iterator[Path]:
    """Film the tasks that the evaluation draws; yields each file when it is complete.

    A picture that cannot be made is one line to `complain`, and the rest goes on.
    """
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    suffix = _suffix(request.video, complain)
    from_above = has_position(run.setup.env)
    if not from_above:
        complain("no paths and no videos from above: the environment has no `position`")
    for result in evaluation.splits:
        episodes = record_all(run.setup, run.state, result, request.seed)
        studio = Studio(run.setup, episodes)
        if from_above:
            path = folder / f"{result.split}-paths.png"
            updates = len(result.adaptation.stats.episode_return) - 1
            title = f"{run.path.resolve().name}: {result.split} tasks, {updates} updates"
            if _made(path, partial(write_paths, path, run.setup.env, episodes, title), complain):
                yield path
            yield from _films(episodes, studio.above, lambda e: folder / f"{_stem(e)}-top-down{suffix}", complain)
        if studio.bodies is None:
            continue
        try:
            with studio:
                yield from _films(episodes, studio.camera, lambda e: folder / f"{_stem(e)}{suffix}", complain)
        except NoRenderer as error:
            complain(f"no camera videos: {error}")


def _films(
    episodes: Sequence[Episode],
    frames: Callable[[Episode], Iterator[np.ndarray]],
    path_of: Callable[[Episode], Path],
    complain: Say,
) -> Iterator[Path]:
    for episode in episodes:
        path, fps = path_of(episode), pace(len(shown_steps(episode.steps)))
        if _made(path, lambda path=path, fps=fps, e=episode: write_video(path, frames(e), fps), complain):
            yield path


def _made(path: Path, make: Callable[[], None], complain: Say) -> bool:
    """Whether `make` wrote `path`; if not, why is one line."""
    try:
        make()
    except Exception as error:  # a failed picture never fails a run, whatever the encoder or the driver does
        complain(f"{path.name}: not made ({type(error).__name__}: {' '.join(str(error).split())[:200]})")
        return False
    return True


class Studio:
    """Frames of a learner's episodes, one view a task: from above, and by a camera where there are bodies.

    As a context manager it holds the cameras, and with them OpenGL; raises NoRenderer where there is none.
    """

    def __init__(self, setup: TrainingSetup, episodes: Sequence[Episode]):
        self.setup, self.env = setup, setup.env
        self.bodies = _embodied(setup.env)
        self._views = {episode.number: self._view(episode.number, episodes) for episode in episodes}
        self._cameras: dict[str, Camera] = {}
        self._stack = ExitStack()

    def __enter__(self) -> "Studio":
        if self.bodies is None:
            raise NoRenderer("this environment has no bodies")
        for stage in STAGE:
            palette = looks.camera_palette(stage)
            camera = Camera(self.bodies.physics.model, *CAMERA, palette)
            self._cameras[stage] = self._stack.enter_context(camera)
        return self

    def __exit__(self, *_) -> None:
        self._stack.close()

    def above(self, episode: Episode) -> Iterator[np.ndarray]:
        """Frames from above."""
        canvas, colour = Above(self._views[episode.number], ABOVE), STAGE[episode.stage]
        for step in shown_steps(episode.steps):
            scene, end = episode.scene(self.env, step), step + 1
            picture = canvas.frame(scene, episode.position[:end], episode.unsafe[:end], colour)
            yield self._captioned(picture, episode, step)

    def camera(self, episode: Episode) -> Iterator[np.ndarray]:
        """Frames by the camera."""
        assert self.bodies is not None
        camera, view = self._cameras[episode.stage], self._views[episode.number]
        camera.show(self.bodies.physics.model_of({name: float(x) for name, x in episode.task.params.items()}))
        camera.look_at((view.x, view.y), view.half)
        steps = shown_steps(episode.steps)
        for index, step in enumerate(steps):
            _, state = innermost(self.env, episode.at(step))
            assert state is not None
            bodies = self.bodies.bodies(episode.task, state)
            qpos = np.asarray(bodies.physics.qpos, np.float64)
            trail = _trail(episode, steps[: index + 1])
            picture = camera.frame(qpos, bodies.places, episode.scene(self.env, step), trail)
            yield self._captioned(picture, episode, step)

    def _captioned(self, picture: np.ndarray, episode: Episode, step: int) -> np.ndarray:
        words = task_words(episode.task.params, dict(self.setup.tasks.parameters))
        measure = limited(self.setup.estimation.cost_measure, "cost", "discounted cost")
        return captioned(picture, episode, step, words, self.env.cost_names, measure)

    def _view(self, number: int, episodes: Sequence[Episode]) -> View:
        """The same for both stages of a task, so that they can be compared."""
        pair = [episode for episode in episodes if episode.number == number]
        return view_of([episode.scene(self.env, 0) for episode in pair], [episode.position for episode in pair])


def _trail(episode: Episode, steps: Sequence[int]) -> list[tuple[float, float, bool]]:
    """The shown places of the path so far; a stretch between two is unsafe where any of its steps was."""
    places = []
    for start, end in zip([0, *steps[:-1]], steps, strict=True):
        x, y = episode.position[end]
        places.append((float(x), float(y), bool(np.any(episode.unsafe[start + 1 : end + 1]))))
    return places


def _embodied(env: Environment) -> Embodied | None:
    """What of the environment has bodies, under wrappers too."""
    inner, _ = innermost(env)
    return inner if isinstance(inner, Embodied) else None


def _suffix(video: Format | None, complain: Say) -> str:
    if video == "mp4" and not has_ffmpeg():
        complain("no mp4 without imageio-ffmpeg (pip install 'metacpo[video]'); writing gif")
    return ".mp4" if video != "gif" and has_ffmpeg() else ".gif"


def _stem(episode: Episode) -> str:
    return f"{episode.split}-task{episode.number}-{episode.stage}"
