"""What the fuzz tests share: how a command has to end, and strategies for what may stand in a file.

METACPO_FUZZ=1 runs all cases, 10 ten times as many; without it, for the suite's time, 0.4 of them.
"""

import contextlib
import io
import os
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from metacpo.cli import main as cli
from metacpo.config.schema import Config, presets

SCALE = float(os.environ.get("METACPO_FUZZ", "0.4"))
# An error that nobody foresaw is shown with its type. Those of the file system say what is wrong themselves.
UNFORESEEN = re.compile(r"metacpo: (?!\w*(OS|File|Directory|Permission)\w*Error: )\w+(Error|Exception|Warning): ")

EXTREMES = [0, -1, 1, 2**31, 2**32, 2**63, -(2**63), 10**400, 1e308, -1e308, 5e-324, 1e39, -0.0, 0.5]
EXTREMES += [float("nan"), float("inf"), float("-inf"), True, False, [], [[]], {}, [0], [10**9, 10**9], [1] * 200]
WORDS = ["", "\0", "a" * 5000, ":", ":x", ".a:b", "x:", "__main__:x", "os:abort", "antigravity:fly", "none.py:env"]
WORDS += [
    "../x.py:env",
    "/dev/zero",
    "/dev/zero.py:env",
    "\x1b[31m",
    "\u2028",
    "\n\r",
    "💥",
    "\0.py:e",
    "x" * 300 + ".py:e",
]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(WORDS)
scalar = st.booleans() | st.integers(-(10**25), 10**25) | st.floats() | text | st.dates() | st.sampled_from(EXTREMES)
junk = st.recursive(scalar, lambda x: st.lists(x, max_size=3) | st.dictionaries(text, x, max_size=3), max_leaves=6)


def cases(count: int) -> settings:
    """So many examples, however long each takes; fixtures of the module may be shared by them."""
    return settings(
        max_examples=round(count * SCALE),
        deadline=None,
        derandomize=SCALE < 1,  # the short set finds the same every time
        phases=[Phase.explicit, Phase.generate],  # a case is small as it is, and shrinking one takes long
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def listing(folder: Path) -> list[str]:
    """Everything in a folder; MuJoCo keeps a log of its complaints where it runs."""
    return sorted(str(path) for path in folder.rglob("*") if path.name != "MUJOCO_LOG.TXT")


def ends_well(args: Sequence[str], folder: Path, writes: Sequence[str] = ()) -> int:
    """The exit code of a command that is silent, says one line or has tyro speak, and leaves nothing in `folder`."""
    before = listing(folder)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.main(args)
    said = err.getvalue()
    assert code in (0, 1, 2)
    if code:
        assert is_box(said) or one_line(said)
        assert listing(folder) == before
    else:
        assert said == ""
        assert set(listing(folder)) - set(before) <= {str(folder / name) for name in writes}
    return code


BOX = "│╭╮╰╯─"


def is_box(said: str) -> bool:
    """Whether tyro says what it cannot read: in a frame, or below a title where there are no such characters."""
    return said[:1] in (BOX[1], " ") and "--help" in said


def one_line(said: str) -> bool:
    """What stands on stderr after a failure: one line, which somebody has written for a reader."""
    assert said.startswith("metacpo: ") and said.endswith("\n")
    assert len(said.splitlines()) == 1 and said[:-1].isprintable()
    assert len(said) < 2100 and "Traceback" not in said
    assert not UNFORESEEN.match(said), said
    return True


def names(settings_type: type = Config) -> list[tuple[str, ...]]:
    """The place of every setting in the tree, sections included."""
    found = []
    for item in fields(settings_type):
        default = item.default_factory() if callable(item.default_factory) else item.default
        found.append((item.name,))
        if is_dataclass(default):
            found += [(item.name, *deeper) for deeper in names(type(default))]
    return found


NAMES = names()  # outside of the strategies: beartype looks at random items of lists


def put(tree: dict, place: tuple[str, ...], value: object) -> None:
    """Set one leaf; a section that is none any more is left as it is."""
    *sections, last = place
    for section in sections:
        tree = tree.setdefault(section, {})
        if not isinstance(tree, dict):
            return
    tree[last] = value


@st.composite
def damaged(draw, original: bytes) -> bytes:
    """A file cut off, with bytes changed, with bytes put in, or replaced by anything."""
    data = bytearray(original)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "remove", "replace"]))
        if kind == "cut":
            del data[at:]
        elif kind == "flip" and data:
            data[at] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            data[at:at] = draw(
                st.binary(max_size=8) | st.sampled_from([b"[" * 3000, b"9" * 5000, b"nan", b"1e999", b","])
            )
        elif kind == "remove":
            del data[at : at + draw(st.integers(1, 40))]
        elif draw(st.booleans()):
            data[:] = draw(st.binary(max_size=60))
    return bytes(data)


PRESETS = [(Path(cli.__file__).parents[1] / "presets" / f"{name}.toml").read_bytes() for name in presets()]
