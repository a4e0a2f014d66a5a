"""Frames into a file: mp4 through ffmpeg where imageio-ffmpeg is installed, else an animated gif by Pillow."""

import importlib.util
import itertools
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from metacpo.run_folder import replacing

Format = Literal["mp4", "gif"]
MOST_FRAMES = 126
SECONDS = 10  # of a video, about
SLOWEST, FASTEST = 2, 16  # frames a second
GIF_COLOURS = 96


class VideoError(Exception):
    """The encoder failed; the message is its last line."""


def has_ffmpeg() -> bool:
    return importlib.util.find_spec("imageio_ffmpeg") is not None


def shown_steps(steps: int) -> list[int]:
    """The steps of an episode that a video shows: evenly, the first and the last among them."""
    stride = max(1, -(-steps // MOST_FRAMES))
    return [*range(0, steps, stride), steps]


def pace(frames: int) -> int:
    """Frames a second for a video of about ten seconds; slower, and shorter, where there is little to see."""
    return min(max(round(frames / SECONDS), SLOWEST), FASTEST)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Frames [H, W, 3] uint8, sides even, into `path`, which ends in .mp4 or .gif.

    The file takes its place only when it is complete; what fails leaves no part of it, and an earlier file as it was.
    """
    with replacing(path) as part:
        if path.suffix == ".gif":
            _write_gif(part, frames, fps)
        else:
            _write_mp4(part, frames, fps)


def _write_mp4(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    import imageio_ffmpeg  # an extra; a gif does without it

    frames = iter(frames)
    first = next(frames)
    height, width = first.shape[:2]
    raw = f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {fps} -i -"
    # yuv420p, and the index in front: what browsers play at once.
    coded = "-an -c:v libx264 -crf 24 -pix_fmt yuv420p -movflags +faststart"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-v", "error", *raw.split(), *coded.split(), str(path)]
    # Not imageio_ffmpeg's own writer: it forks, which a process with JAX's threads in it should not.
    with (
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said) as ffmpeg,
    ):
        assert ffmpeg.stdin is not None
        try:
            for frame in itertools.chain([first], frames):
                ffmpeg.stdin.write(np.ascontiguousarray(frame).data)
            ffmpeg.stdin.close()
        except BrokenPipeError:
            pass  # it ended early: its exit code and its last words tell why
        except BaseException:
            ffmpeg.kill()
            raise
        if ffmpeg.wait():
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            raise VideoError(words[-1] if words else f"ffmpeg ended with code {ffmpeg.returncode}")


def _write_gif(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    images = [Image.fromarray(frame) for frame in frames]
    # One palette for all frames, from the last one: by then everything that has a colour is in view.
    palette = images[-1].quantize(GIF_COLOURS, dither=Image.Dither.NONE)
    flat = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    flat[0].save(path, save_all=True, append_images=flat[1:], duration=round(1000 / fps), loop=0)
