"""What MuJoCo complains of while our worlds move: heard, where MuJoCo itself would print it and write a log file."""
# pyright: reportAttributeAccessIssue=false
# (MuJoCo's C extension ships no type stubs for its functions and structures.)

import threading
from types import TracebackType

import mujoco

_lock = threading.Lock()
_listeners: list[list[str]] = []
_outside = [None]  # whose handler is put back when nobody listens


class Listening:
    """The warnings of a `with` block, as they come. MuJoCo has one handler a process: who listens at the same time
    hears all of them, and the handler of before is put back when the last one leaves."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def __enter__(self) -> list[str]:
        with _lock:
            if not _listeners:
                _outside[0] = mujoco.get_mju_user_warning()
                mujoco.set_mju_user_warning(_hear)
            _listeners.append(self.said)
        return self.said

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with _lock:
            _listeners[:] = [said for said in _listeners if said is not self.said]
            if not _listeners:
                mujoco.set_mju_user_warning(_outside[0])


def _hear(text: str) -> None:
    for said in _listeners:
        said.append(text)
