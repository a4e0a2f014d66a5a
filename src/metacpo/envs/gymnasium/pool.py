"""Gymnasium environments that play no episode at the moment: they are used again before new ones are built."""

from collections.abc import Callable

import gymnasium
import numpy as np

from metacpo.envs.gymnasium.facts import Boundary, GymnasiumError

Make = Callable[[dict[str, float]], gymnasium.Env]


class Pool:
    """Environments that play no episode, by the bytes of their task's parameters (float32, in the order of `names`)."""

    def __init__(self, make: Make, names: tuple[str, ...]):
        self._make = make
        self._names = names
        self._idle: dict[bytes, list[gymnasium.Env]] = {}
        self.built = 0

    def take(self, task: bytes) -> gymnasium.Env:
        """An environment of this task: an idle one, one that is told its new task, or a new one."""
        if task in self._idle:
            return self._pop(task)
        params = dict(zip(self._names, np.frombuffer(task, np.float32).tolist(), strict=True))
        for other, idle in self._idle.items():
            if idle[-1].has_wrapper_attr("set_task"):
                env = self._pop(other)
                with Boundary("set_task"):
                    env.get_wrapper_attr("set_task")(params)
                return env
        with Boundary("make"):
            env = self._make(params)
        if not isinstance(env, gymnasium.Env):
            raise GymnasiumError(f"make: returned a {type(env).__name__}; return a gymnasium.Env")
        self.built += 1
        return env

    def give(self, task: bytes, env: gymnasium.Env) -> None:
        self._idle.setdefault(task, []).append(env)

    def trim(self, most: int) -> None:
        """Close the longest idle ones beyond `most`."""
        for _ in range(sum(map(len, self._idle.values())) - most):
            with Boundary("close"):
                self._pop(next(iter(self._idle))).close()

    def _pop(self, task: bytes) -> gymnasium.Env:
        env = self._idle[task].pop()
        if not self._idle[task]:
            del self._idle[task]
        return env
