"""Parsing of command lines by tyro, with every mistake as one line instead of tyro's boxes of several."""

import contextlib
import io
import re
from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

MARKERS = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)
NUMBERS = {int: ("INT", "a whole number"), float: ("FLOAT", "a number")}
BOX = "│╭╮╰╯─ "
HINTS = ("Perhaps you meant:", "Argument helptext:")


class UsageError(Exception):
    """A command line that is not allowed; the message is one line."""


def parse(options: type, verb: str, args: Sequence[str], about: str | None = None) -> Any:
    """`args` as an instance of the dataclass `options`. `--help` prints to stdout and raises SystemExit."""
    boxes = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxes):
            return tyro.cli(
                options,
                prog=f"metacpo {verb}",
                description=about,
                args=args,
                config=MARKERS,
                registry=_registry(),
            )
    except SystemExit as end:
        if not end.code:
            raise
        raise UsageError(f"{_flat(boxes.getvalue())} (see metacpo {verb} --help)") from None


def _registry() -> ConstructorRegistry:
    """Numbers whose parse errors say what is wrong in words."""
    registry = ConstructorRegistry()

    @registry.primitive_rule
    def number(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
        kinds = set(get_args(info.type) or (info.type,)) - {NoneType}  # None only as a default
        if len(kinds) != 1 or not kinds <= NUMBERS.keys():
            return None
        (kind,) = kinds
        metavar, words = NUMBERS[kind]

        def read(texts: list[str]) -> int | float:
            try:
                return kind(texts[0])
            except ValueError:
                raise ValueError(f"{texts[0]!r} is not {words}") from None

        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=metavar,
            instance_from_str=read,
            is_instance=lambda x: x is None or isinstance(x, kind),
            str_from_instance=lambda x: [str(x)],
        )

    return registry


def _flat(boxes: str) -> str:
    """The message of a tyro error box: its first paragraph, and of the second one what would be allowed.

    ╭─ Unrecognized options ───────────╮   where the terminal has no such characters, the title is a line
    │ Unrecognized options: --seeed, 3 │   of its own, and rules are hyphens
    │ ──────────────────────────────── │
    │ Perhaps you meant:               │   or: Argument helptext:
    │     --seed INT                   │
    """
    plain = re.sub(r"\x1b\[[0-9;]*m", "", boxes)
    lines = [re.sub(r"^-{8,}$", "", line.strip(BOX)) for line in plain.splitlines()]
    body = "\n".join(lines[1:]).strip()  # without the title
    message, *others = (part.splitlines() for part in re.split(r"\n{2,}", body))
    allowed = next((part[1] for part in others if part[0] in HINTS), None)
    first = " ".join(" ".join(message).split()).removeprefix("Error parsing ").rstrip(".")
    return f"{first}; expected {allowed}" if allowed else first
