"""Parsing of command lines by tyro, in whose own words a mistake is told; numbers are said in ours."""

from collections.abc import Sequence
from types import NoneType
from typing import Any, get_args

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

MARKERS = (tyro.conf.PositionalMetavarFromFieldName, tyro.conf.DisallowNone)
NUMBERS = {int: ("INT", "a whole number"), float: ("FLOAT", "a number")}


class UsageError(Exception):
    """A command line that is not allowed; the message is one line."""


def parse(options: type, verb: str, args: Sequence[str], about: str | None = None) -> Any:
    """`args` as an instance of the dataclass `options`.

    Raises SystemExit: 0 after `--help`, 2 after what tyro says of a command line that it cannot read.
    """
    return tyro.cli(
        options,
        prog=f"metacpo {verb}",
        description=about,
        args=args,
        config=MARKERS,
        registry=_registry(),
    )


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
