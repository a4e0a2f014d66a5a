"""What keeps a run folder whole and safe: files that are replaced at once, one writer at a time, failures in one line,
and nothing outside of it touched.

A run folder may come from a stranger. A link in it could lead to a file of the user's, to be shown in a report or
overwritten by one; a pipe or a device would keep its reader waiting for ever.
"""

import os
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

LOCK = "lock"


class RunError(Exception):
    """A run folder that cannot be used; the message is one line."""


class RunExistsError(RunError):
    """A folder for a new run that is not empty: runs are never overwritten."""


def complain(line: str) -> None:
    """Say on stderr what went wrong where the work goes on all the same."""
    print(f"metacpo: {' '.join(line.split())}", file=sys.stderr, flush=True)


def part_of(path: Path) -> Path:
    """Where a file is written until it is complete; with its suffix, by which encoders know what to write."""
    return path.with_name(f"{path.stem}.part{path.suffix}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write to, whose file takes the place of `path` at the end: whoever reads it, after whatever happens,
    finds the old file or the whole new one. Of a file that fails, nothing is left."""
    part = part_of(path)
    try:
        yield part
        sync(part)
        os.replace(part, path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Return when the disk has what was written to this file, or the names in this folder."""
    if path.is_dir() and os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(run_dir: Path) -> Iterator[None]:
    """An OSError within (disk full, read-only) as a RunError that names the file and says what is left."""
    try:
        yield
    except OSError as error:
        raise _unwritable(error.filename or run_dir, run_dir, error) from error


def require_writable(folder: Path) -> None:
    """Raises the same RunError where no file can be made in a folder: before the work, whose result would be lost."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(folder, folder, error) from error


def _unwritable(where: str | Path, run_dir: Path, error: OSError) -> RunError:
    intact = "; checkpoints that are whole stay so" if (run_dir / "checkpoints").is_dir() else ""
    return RunError(f"{where}: cannot be written ({error.strerror or error}){intact}")


@contextmanager
def lock(run_dir: Path) -> Iterator[None]:
    """Be the only process that writes into the folder. Raises RunError with who else does.

    The lock is the kernel's: it goes with the process, however that ends. The file only says who holds it, and stays:
    to delete a locked file would let a third process lock another one of its name.
    """
    with writing(run_dir):
        descriptor = os.open(run_dir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _acquire(descriptor, run_dir)
        with writing(run_dir):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"process {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, run_dir: Path) -> None:
    if fcntl is None:
        complain(f"{run_dir}: this system has no flock; nothing stops a second process from training here")
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
        raise RunError(f"{run_dir}: is being trained by {holder}") from None
    except OSError as error:  # file systems without locks, some NFS among them
        complain(f"{run_dir}: cannot be locked ({error.strerror}); nothing stops a second process from training here")


def find_unsafe_path(folder: Path) -> str | None:
    """One line about something in the folder that is no file, no folder and no link to one of its own; else None."""
    root = os.path.realpath(folder)
    for where, folders, files in os.walk(root):
        for name in sorted((*folders, *files)):
            path = os.path.join(where, name)
            shown = folder / os.path.relpath(path, root)
            if os.path.commonpath([root, os.path.realpath(path)]) != root:
                return f"{shown}: is a link that leads out of the run folder"
            try:
                mode = os.stat(path).st_mode
            except OSError as error:
                return f"{shown}: cannot be read ({error.strerror})"
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                return f"{shown}: is neither a file nor a folder"
    return None


def short_text(path: Path, longest: int) -> str:
    """The text of a file of at most so many characters. Raises OSError for another one, a pipe or a device."""
    if path.exists() and not path.is_file():
        raise OSError("not a file")
    with path.open(encoding="utf-8") as file:
        text = file.read(longest + 1)
    if len(text) > longest:
        raise OSError(f"more than {longest} characters")
    return text
