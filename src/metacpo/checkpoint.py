"""Checkpoints of a run: the whole TrainState, by Orbax, with a checksum of every file.

    checkpoints/<iteration>/             what Orbax wrote (arrays in TensorStore's OCDBT format, metadata)
    checkpoints/<iteration>/SHA256SUMS   `sha256sum -c` reads it; written last

Orbax writes into a temporary folder and renames it, so that a checkpoint is whole or absent. It does not
notice every kind of later damage, though (a flipped bit in an array's file is restored as another number),
and what it raises about the others names no file. The checksums are verified before Orbax reads anything.
"""

import hashlib
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import Array

from metacpo.learner import TrainState

FOLDER = "checkpoints"
SUMS = "SHA256SUMS"
KEEP = 3  # the newest ones


class CheckpointError(Exception):
    """No checkpoint, or a damaged one; the message is one line that names the folder or the file."""


def save(run_dir: Path, state: TrainState) -> Path:
    """Write the checkpoint of `state`, named after its iteration, and delete all but the newest KEEP."""
    folder = run_dir.resolve() / FOLDER / str(int(state.iteration))
    with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
        checkpointer.save(folder, args=ocp.args.StandardSave(_arrays(state)[0]))
    lines = [f"{_digest(path)}  {path.relative_to(folder)}\n" for path in _files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")
    for old in _iterations(run_dir)[:-KEEP]:
        shutil.rmtree(run_dir / FOLDER / str(old))
    return folder


def restore(run_dir: Path, like: TrainState) -> TrainState:
    """The newest checkpoint of a run. `like` is any state of the same learner: it gives shapes and types."""
    folder = run_dir / FOLDER
    iterations = _iterations(run_dir)
    if not iterations:
        raise CheckpointError(f"{folder}: holds no checkpoint")
    folder = folder / str(iterations[-1])
    _verify(folder)
    arrays, structure = _arrays(like)
    target = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for name, x in arrays.items()}
    try:
        with _quiet(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            saved = checkpointer.metadata(folder.resolve()).item_metadata.tree
            if _shapes(saved) != _shapes(target):
                raise CheckpointError(f"{folder}: is of a policy of another shape than {run_dir / 'config.toml'} says")
            restored = checkpointer.restore(folder.resolve(), args=ocp.args.StandardRestore(target))
    except CheckpointError:
        raise
    except Exception as error:  # Orbax on files that agree with their checksums, but are no checkpoint: anything
        raise CheckpointError(f"{folder}: cannot be read ({type(error).__name__}: {error})") from error
    leaves = [_as_leaf(leaf, restored[name]) for name, leaf in zip(arrays, jax.tree.leaves(like), strict=True)]
    return jax.tree.unflatten(structure, leaves)


@contextmanager
def _quiet() -> Iterator[None]:
    """Orbax logs what is wrong as well as raising it, and a failure is one line on stderr."""
    logger = logging.getLogger("absl")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was


def latest(run_dir: Path) -> int | None:
    """The iteration of the newest checkpoint."""
    return max(_iterations(run_dir), default=None)


def _iterations(run_dir: Path) -> list[int]:
    folder = run_dir / FOLDER
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.is_dir() and path.name.isdecimal())


def _verify(folder: Path) -> None:
    """Every file that was saved must be there and unchanged."""
    sums = folder / SUMS
    if not sums.is_file():
        raise CheckpointError(f"{sums}: missing")
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        saved = {folder / name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):  # a line without its two parts, or text that is not UTF-8
        raise CheckpointError(f"{sums}: damaged") from None
    present = set(_files(folder))
    for path in present - saved.keys():
        raise CheckpointError(f"{path}: not listed in {sums.name}")
    for path, digest in saved.items():
        if path not in present:
            raise CheckpointError(f"{path}: missing")
        if _digest(path) != digest:
            raise CheckpointError(f"{path}: damaged")


def _files(folder: Path) -> list[Path]:
    """The files of a checkpoint without its checksums."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _arrays(state: TrainState) -> tuple[dict[str, Array], Any]:
    """The state's leaves by name, and its structure; the PRNG key as the numbers that a file can hold."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    plain = {
        jax.tree_util.keystr(path, simple=True, separator="."): jax.random.key_data(x) if _is_key(x) else x
        for path, x in leaves
    }
    return plain, structure


def _as_leaf(like: Array, saved: Array) -> Array:
    return jax.random.wrap_key_data(saved, impl=jax.random.key_impl(like)) if _is_key(like) else saved


def _is_key(x: Array) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _shapes(arrays: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], Any]]:
    return {name: (tuple(array.shape), jnp.dtype(array.dtype)) for name, array in arrays.items()}
