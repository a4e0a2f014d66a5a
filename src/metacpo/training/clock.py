"""The time and the environment steps that a run has used."""

import time
from collections import deque


class Clock:
    """Environment steps and seconds of a run, compilation and earlier sessions included, and its pace."""

    def __init__(self, env_steps: int, seconds: float):
        self.env_steps = env_steps
        self._begin = time.perf_counter() - seconds
        self._lap = self._begin
        self._laps: deque[tuple[int, int, float]] = deque(maxlen=10)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self._begin

    def start_lap(self) -> None:
        self._lap = time.perf_counter()

    def end_lap(self, env_steps: int, planned: int) -> None:
        """After one meta-iteration: its environment steps, and those of the budget, where no episode ends early."""
        self.env_steps += env_steps
        self._laps.append((env_steps, planned, time.perf_counter() - self._lap))

    @property
    def pace(self) -> tuple[float, float]:
        """Environment steps a second, used and of the budget: means over the last ten meta-iterations."""
        steps, planned, seconds = (sum(numbers) for numbers in zip(*self._laps, strict=True))
        return steps / seconds, planned / seconds
