"""The command line: which verb, which exit code. The verbs are in verbs.py.

Exit codes: 0 done (an interrupted run that was saved is done), 1 failed, 2 bad usage or config. Whatever is
wrong is one line on stderr, or tyro's own message where it cannot read an option; `--debug`, which every verb takes,
shows the traceback.
"""

import os
import sys
from collections.abc import Sequence

from metacpo.cli.usage import UsageError, parse
from metacpo.cli.verbs import VERBS, Verb
from metacpo.runtime.interrupts import still_working
from metacpo.runtime.threads import fix_threads

LONGEST = 2000  # characters of a message
USAGE = (  # by name: where an import is what failed, importing these would fail again
    "metacpo.config.reading.ConfigError",
    "metacpo.envs.base.ContractError",
    "metacpo.envs.gymnasium.facts.GymnasiumError",
    "metacpo.envs.physics.model.PhysicsError",
    "metacpo.envs.registry.UnknownEnvironment",
    "metacpo.envs.tasks.TaskError",
    "metacpo.run_folder.RunExistsError",
    "metacpo.runtime.devices.DeviceError",
    "metacpo.cli.usage.UsageError",
)


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    try:
        return _verb([arg for arg in args if arg != "--debug"])()
    except SystemExit as end:  # tyro's, after help or what it cannot read
        return int(end.code or 0)
    except KeyboardInterrupt:
        print("metacpo: interrupted", file=sys.stderr)
        return 1
    except Exception as error:  # the boundary to the user: every failure is one line and an exit code
        if debug:
            raise
        print(f"metacpo: {_one_line(error)}", file=sys.stderr)
        return 2 if _usage_mistake(error) else 1


def entry() -> None:
    """`main` as a process, which ends at once although an interrupted computation or compilation goes on."""
    fix_threads()
    code = main()
    if still_working():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _verb(args: Sequence[str]) -> Verb:
    """The verb that the command line asks for, with its options."""
    if args and args[0] in ("-h", "--help"):
        return _help
    if not args or args[0] not in VERBS:
        given = f"{args[0]!r} is not one" if args else "missing; one"
        raise UsageError(f"verb: {given} of {', '.join(VERBS)}")
    verb = VERBS[args[0]]
    return parse(verb, args[0], args[1:]) if isinstance(verb, type) else verb(args[1:])


def _help() -> int:
    print("usage: metacpo VERB ...\n")
    print("Meta-learning of safe policies. `metacpo VERB --help` shows the options of a verb.\n")
    for name, verb in VERBS.items():
        print(f"  {name:10}{(verb.__doc__ or '').splitlines()[0]}")
    print("\n--debug shows the traceback of a failure. Exit codes: 0 done, 1 failed, 2 bad usage or config.")
    return 0


def _usage_mistake(error: Exception) -> bool:
    """Whether it is something that the user can mend by writing another command."""
    return any(f"{kind.__module__}.{kind.__name__}" in USAGE for kind in type(error).__mro__)


def _one_line(error: Exception) -> str:
    """The error's message, after its type where the message was not written for users."""
    text = " ".join(str(error).split())
    # What an environment says in the midst of a compiled program stands at the end of the program's own traceback.
    if " GymnasiumError: " in text:
        return _printable(text.rpartition(" GymnasiumError: ")[2])
    text = _printable(text)
    return text if type(error).__module__.startswith("metacpo.") else f"{type(error).__name__}: {text}"


def _printable(text: str) -> str:
    """The text without what a terminal would obey (a file's names and values are in it), cut where it is too long."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:LONGEST])
    return shown if len(text) <= LONGEST else f"{shown} …"


if __name__ == "__main__":
    entry()
