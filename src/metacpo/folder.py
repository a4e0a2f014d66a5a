"""What readers and writers of a run folder keep to: nothing outside of it is touched, no file is half written.

A run folder may come from a stranger. A link in it could lead to a file of the user's, to be shown in a report or
overwritten by one; a pipe or a device would keep its reader waiting for ever.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO


def complaint(folder: Path) -> str | None:
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


@contextmanager
def replacing(path: Path) -> Iterator[TextIO]:
    """A text file that takes the place of `path` only when it is complete; of one that fails, nothing is left."""
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            yield file
        os.replace(part, path)
    except BaseException:
        if part.is_file():
            part.unlink()
        raise
