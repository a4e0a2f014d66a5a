"""SHA256SUMS of a folder: every file with its checksum, as `sha256sum -c` reads it, and what of that holds no more."""

import hashlib
from pathlib import Path

SUMS = "SHA256SUMS"


def write_sums(folder: Path) -> None:
    """The checksums of all files in the folder."""
    lines = [f"{_digest(path)}  {path.relative_to(folder)}\n" for path in _files(folder)]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def find_damage(folder: Path) -> str | None:
    """One line about a file that is not as `write_sums` saw it, or that it did not see; else None."""
    sums = folder / SUMS
    if not sums.is_file():
        return f"{sums}: missing"
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
        saved = {folder / name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):  # a line without its two parts, or text that is not UTF-8
        return f"{sums}: damaged"
    present = set(_files(folder))
    for path in present - saved.keys():
        return f"{path}: not listed in {sums.name}"
    for path, digest in saved.items():
        if path not in present:
            return f"{path}: missing"
        if _digest(path) != digest:
            return f"{path}: damaged"
    return None


def _files(folder: Path) -> list[Path]:
    """The files of the folder without its checksums."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / SUMS)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
