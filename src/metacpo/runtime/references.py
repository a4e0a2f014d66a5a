"""Objects in the user's own code: MODULE:ATTRIBUTE, in a module that Python finds, or FILE.py:ATTRIBUTE."""

import importlib
import importlib.util
import sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any


class LoadError(ValueError):
    """An object that is not where a reference says, or whose module fails; the message is one line."""


def load(reference: str, wanted: str) -> Any:
    """The object at MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE. Raises LoadError where there is none.

    wanted: what it should be, in the message.
    """
    where, _, attribute = reference.rpartition(":")
    if where.partition(".")[0] in sys.stdlib_module_names:  # some do something when they are imported
        raise LoadError(f"{where!r} is a module of Python itself, which holds no {wanted}")
    try:
        module = _from_file(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    except (Exception, SystemExit) as error:
        raise LoadError(what_failed("cannot be imported", where, error)) from error
    if not attribute or not hasattr(module, attribute):
        raise LoadError(f"{where!r} has no attribute {attribute!r}")
    return getattr(module, attribute)


def what_failed(what: str, where: str, error: BaseException) -> str:
    """What went wrong in code of the user's, in one line with its place: our own words as they are."""
    text = " ".join(str(error).split())
    if type(error).__module__.startswith("metacpo."):
        return f"{where!r}: {text}"
    return f"{where!r} {what} ({type(error).__name__}: {text})"


def source_path(reference: str) -> Path | None:
    """Where the code of MODULE:ATTRIBUTE or FILE.py:ATTRIBUTE lies, found without running any of it; else None."""
    where = reference.rpartition(":")[0]
    if where.endswith(".py"):
        return Path(where).resolve()
    found, places = None, None
    for part in where.split("."):  # a folder without __init__.py is a package too, and has no code of its own
        spec = PathFinder.find_spec(part, places)
        if spec is None:
            break
        found, places = spec.origin or found, spec.submodule_search_locations
        if places is None:
            break
    return Path(found).resolve() if found else None


def located(reference: str, folder: Path) -> str:
    """The reference with a FILE.py of `folder` by its absolute path: a run folder is not where the file is."""
    where, _, attribute = reference.rpartition(":")
    return f"{(folder / where).resolve()}:{attribute}" if where.endswith(".py") else reference


def _from_file(path: Path) -> ModuleType:
    """The module in a file, imported once, as a script would be: files beside it can be imported."""
    path = path.resolve(strict=True)
    name = f"metacpo_user:{path}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        with _importable(path.parent):
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
    return sys.modules[name]


@contextmanager
def _importable(folder: Path):
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
