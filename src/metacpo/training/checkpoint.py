"""Checkpoints of a run: the whole TrainState, by Orbax, with a checksum of every file.

    checkpoints/<iteration>/             what Orbax wrote (arrays in TensorStore's OCDBT format, metadata)
    checkpoints/<iteration>/config.toml  the settings that the state was trained under
    checkpoints/<iteration>/SHA256SUMS   `sha256sum -c` reads it; written last
    checkpoints/<anything else>          what an interrupted write left; the next write removes it

A checkpoint is written beside its place, brought to the disk, and renamed: it is whole or absent, whatever kills the
process. Orbax does not notice every kind of later damage (a flipped bit in an array's file is restored as another
number), and what it raises about the others names no file: the checksums are verified before it reads anything.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import Array

from metacpo.config.schema import Config
from metacpo.run_folder import complain, sync
from metacpo.training.checksums import find_damage, write_sums
from metacpo.training.state import TrainState

FOLDER = "checkpoints"
SETTINGS = "config.toml"
KEEP = 3  # the newest ones
OVERHEAD = 2**17  # bytes of a checkpoint beyond its numbers, generously


# Parts of a state by the names that they had.
RENAMED = (("knobs.", "inner_state."),)
GONE = ("outlook.", "predicted_change.")  # of earlier states; metrics.csv has what they were kept for


class CheckpointError(Exception):
    """No checkpoint, or a damaged one; the message is one line that names the folder or the file."""


def save(run_dir: Path, state: TrainState, config: Config | None = None) -> Path:
    """Write the checkpoint of `state`, named after its iteration, and delete all but the newest KEEP.

    config: what the state was trained under, for `settings`; a state that nothing was trained for has none.
    Raises CheckpointError where it cannot be written (disk full); those before it are untouched then.
    """
    parent, iteration = run_dir.resolve() / FOLDER, int(state.iteration)
    folder, part = parent / str(iteration), parent / f"{iteration}.part"
    try:
        _clear(parent)
        _try_disk(parent / "room.part", OVERHEAD + sum(x.nbytes for x in _arrays(state).values()))
        _write(part, state, config)
        if folder.exists():  # found damaged, or this state would not have been computed again
            os.rename(folder, parent / f"{iteration}.damaged")
        os.rename(part, folder)
        sync(parent)
        kept = [number for number in _iterations(run_dir) if number <= iteration][-KEEP:]
        for number in set(_iterations(run_dir)) - set(kept):  # newer ones were found damaged too
            shutil.rmtree(parent / str(number))
    except (OSError, ValueError, RuntimeError) as error:  # TensorStore has an OSError come as one of the others
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(f"{folder}: cannot be written ({_reason(error)}); those before it are intact") from error
    return folder


def restore(run_dir: Path, like: TrainState) -> TrainState:
    """The newest whole checkpoint of a run; damaged ones are named on stderr.

    `like` is any state of the same setup: it gives shapes and types. Raises CheckpointError if none is whole.
    """
    parent, damage = run_dir / FOLDER, []
    for number in reversed(_iterations(run_dir)):
        folder = parent / str(number)
        if line := find_damage(folder):
            damage.append(line)
            continue
        for line in damage:
            complain(f"{line}; the checkpoint of iteration {number} is used instead")
        return _read(folder, like, run_dir)
    if damage:
        raise CheckpointError(f"{parent}: none of {len(damage)} is whole; {damage[0]}")
    raise CheckpointError(f"{parent}: holds no checkpoint")


def _read(folder: Path, like: TrainState, run_dir: Path) -> TrainState:
    """A checkpoint that is whole, as a state like `like`."""
    arrays = _arrays(like)
    target = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in arrays.items()}
    try:
        with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            saved = checkpointer.metadata(folder.resolve()).item_metadata.tree
            names = {_todays_name(name): name for name in saved if not name.startswith(GONE)}
            if _shapes({new: saved[old] for new, old in names.items()}) != _shapes(target):
                raise CheckpointError(f"{folder}: is of a policy of another shape than {run_dir / 'config.toml'} says")
            gone = {name: x for name, x in saved.items() if name.startswith(GONE)}  # all of a checkpoint is read
            wanted = {name: jax.ShapeDtypeStruct(tuple(x.shape), x.dtype) for name, x in gone.items()}
            wanted |= {old: target[new] for new, old in names.items()}
            found = checkpointer.restore(folder.resolve(), args=ocp.args.StandardRestore(wanted))
            restored = {new: found[old] for new, old in names.items()}
    except CheckpointError:
        raise
    except Exception as error:  # Orbax on files that agree with their checksums, but are no checkpoint: anything
        raise CheckpointError(f"{folder}: cannot be read ({type(error).__name__}: {error})") from error
    leaves = [_as_leaf(leaf, restored[name]) if name in restored else leaf for name, leaf in _named(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _todays_name(name: str) -> str:
    for old, new in RENAMED:
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


def _write(folder: Path, state: TrainState, config: Config | None) -> None:
    """A new checkpoint, on the disk when this returns."""
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(folder, args=ocp.args.StandardSave(_arrays(state)))
    if config is not None:
        config.save(folder / SETTINGS)
    write_sums(folder)
    for path in (*folder.rglob("*"), folder):
        sync(path)


def _try_disk(path: Path, size: int) -> None:
    """Raise the system's own OSError if the disk does not take so many bytes.

    From within Orbax it would come as one of several others, with its threads' tracebacks on stderr.
    """
    try:
        with path.open("wb") as file:
            file.write(bytes(size))
            file.flush()
            os.fsync(file.fileno())
    finally:
        path.unlink(missing_ok=True)


def _clear(parent: Path) -> None:
    """Remove what interrupted writes have left."""
    parent.mkdir(exist_ok=True)
    for path in parent.iterdir():
        if path.is_file():
            path.unlink()
        elif not path.name.isdecimal():
            shutil.rmtree(path)


def _reason(error: Exception) -> str:
    """What the system said, without TensorStore's account of where."""
    number = error.errno if isinstance(error, OSError) else None
    said = [os.strerror(e) for e in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)]
    known = [text for text in said if text in str(error)]
    return os.strerror(number) if number else known[0] if known else " ".join(str(error).split())[:200]


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs what is wrong as well as raising it, and a failure is one line on stderr."""
    logger = logging.getLogger("absl")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def settings(run_dir: Path, iteration: int) -> Config | None:
    """What the checkpoint of this iteration was trained under; None where it does not say, as older ones do not.

    Raises ConfigError for settings that this version cannot read.
    """
    path = run_dir / FOLDER / str(iteration) / SETTINGS
    return Config.saved(path) if path.is_file() else None


def latest(run_dir: Path) -> int | None:
    """The iteration of the newest checkpoint."""
    return max(_iterations(run_dir), default=None)


def _iterations(run_dir: Path) -> list[int]:
    folder = run_dir / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())


def _arrays(state: TrainState) -> dict[str, Array]:
    """The state's leaves by name, the PRNG key as the numbers that a file can hold.

    Without those of no elements (the multipliers where there is no constraint), which Orbax refuses to save.
    """
    return {name: jax.random.key_data(x) if _is_key(x) else x for name, x in _named(state) if x.size}


def _named(state: TrainState) -> list[tuple[str, Array]]:
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in leaves]


def _as_leaf(like: Array, saved: Array) -> Array:
    return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(like)) if _is_key(like) else saved


def _is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {name: (tuple(array.shape), jnp.dtype(array.dtype)) for name, array in arrays.items()}
