"""Gymnasium environments on the host: which of them plays which episode, and what is answered to a state.

A compiled program passes states by value; a Gymnasium environment has one state and changes it. Three rules let the
program see pure functions all the same:

- Every reset begins new episodes, each under a ticket of its own that the state carries. No two of them share an
  environment, however the compiled program orders its calls.
- A state is stepped only where its episode stands. Asked for the step before once more, the host repeats its answer;
  asked to go on after the end, it repeats the last one. Worlds that a rollout has masked out need both.
- Any number of episodes may begin at one reset: a state at step 0 that has been left already is begun anew from its
  seed. So do two policies that are compared from the same starts. Later states cannot be returned to: an error.

Environments go back to the pool when their episode ends, or when it is forgotten: it is not of the newest 8 calls that
began episodes, and 256 newer ones exist. Idle ones are closed beyond the size of the largest call. That bounds memory.
"""

import threading
from collections import deque
from dataclasses import dataclass, field

import gymnasium
import numpy as np

from metacpo.envs.gymnasium.facts import Boundary, Facts, GymnasiumError
from metacpo.envs.gymnasium.pool import Pool

CALLS, EPISODES = 8, 256  # what is never forgotten: the newest calls that began episodes, and episodes
TICKETS = 2**31  # as many as an int32 has; a number comes again when its first owner is long forgotten
Answers = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(eq=False)
class Episode:
    """One episode: its beginning (seed and task), the environment that plays it until the end, and its last answer.

    numbers [O + 3 + m]: observation, position, reward, costs. again: others that began at the same reset.
    """

    ticket: int
    start: bytes
    env: gymnasium.Env | None
    numbers: np.ndarray
    count: int = 0
    action: bytes = b""
    terminated: bool = False
    truncated: bool = False
    again: list["Episode"] = field(default_factory=list)

    @property
    def over(self) -> bool:
        return self.terminated or self.truncated

    def stands_at(self, steps: int, action: bytes) -> bool:
        """Whether a state after `steps` steps can be stepped, or has just been stepped in this way.

        A world that has just broken was masked out: its last good state is asked again under any action.
        """
        just = self.count == steps + 1 and (action == self.action or not np.isfinite(self.numbers).all())
        return self.count == steps or just


class Host:
    """All episodes of one family of environments. A call serves a whole batch of worlds, one after the other."""

    def __init__(self, facts: Facts, pool: Pool):
        self._facts = facts
        self._pool = pool
        self._episodes: dict[int, Episode] = {}
        self._calls: deque[list[Episode]] = deque()
        self._begun: list[Episode] = []  # by the running call
        self._next = 0
        self._largest = 0
        self._lock = threading.Lock()  # a program may make two calls at once

    @property
    def numbers(self) -> int:
        """Length of an episode's numbers."""
        return self._facts.observation_size + 3 + len(self._facts.cost_names)

    def reset(self, start: np.ndarray) -> Answers:
        """New episodes from start [*batch, 1 + P]: seed, and the bits of the parameters (uint32).

        Answers (int32 [*batch, 2]: ticket and steps; float32 [*batch, O + 3 + m]; bool [*batch, 2]: how it ended).
        """
        batch, start = start.shape[:-1], start.reshape(-1, start.shape[-1])
        with self._lock:
            episodes = [self._begin(row.tobytes()) for row in start]
            self._forget()
            return _answers(episodes, batch)

    def step(self, start: np.ndarray, where: np.ndarray, action: np.ndarray) -> Answers:
        """One step of the worlds at where [*batch, 2] (ticket and steps) under action [*batch, A], as `reset`."""
        batch = where.shape[:-1]
        where = where.reshape(-1, 2)
        start, action = start.reshape(len(where), -1), action.reshape(len(where), -1)
        allowed = self._facts.action(action)
        taken: set[int] = set()
        episodes = []
        with self._lock:
            for row, (ticket, steps), chosen in zip(start, where.tolist(), allowed, strict=True):
                episode = self._find(row.tobytes(), ticket, steps, chosen.tobytes(), taken)
                taken.add(episode.ticket)
                episodes.append(episode)
            waiting = where[:, 1] == [e.count for e in episodes]  # the others have been stepped already
            waiting &= [e.env is not None for e in episodes]  # or are over
            due = [(episodes[i], allowed[i]) for i in np.flatnonzero(waiting)]
            self._play(due)
            self._forget()
            return _answers(episodes, batch)

    def _find(self, start: bytes, ticket: int, steps: int, action: bytes, taken: set[int]) -> Episode:
        """The episode of a state; at step 0 one that no other world of this call has taken."""
        known = self._episodes.get(ticket)
        if known is not None and known.start != start:
            raise GymnasiumError(f"{self._facts.name}: the task changed within an episode; reset with the new task")
        if steps == 0:
            for episode in () if known is None else (known, *known.again):
                live = episode.ticket in self._episodes and episode.ticket not in taken
                if live and episode.stands_at(0, action):
                    return episode
            episode = self._begin(start)
            if known is not None:
                known.again.append(episode)
            return episode
        if known is None:
            newer = f"{EPISODES} newer episodes have begun since; reset again"
            raise GymnasiumError(f"{self._facts.name}: the episode of this state is forgotten: {newer}")
        if not known.stands_at(steps, action):
            stands = f"the state is at step {steps}, its environment at step {known.count}"
            raise GymnasiumError(f"{self._facts.name}: a Gymnasium environment cannot go back in time: {stands}")
        return known

    def _begin(self, start: bytes) -> Episode:
        seed, task = int(np.frombuffer(start[:4], np.uint32)[0]), start[4:]
        row = np.empty(self.numbers)
        with Boundary(f"{self._facts.name}: reset"):
            env = self._pool.take(task)
            obs = self._facts.start(env.reset(seed=seed))
            self._write(row, env, obs, 0.0, [0.0] * len(self._facts.cost_names))
        episode = Episode(self._next, start, env, _single(row))
        self._next = (self._next + 1) % TICKETS
        self._episodes[episode.ticket] = episode
        self._begun.append(episode)
        return episode

    def _play(self, due: list[tuple[Episode, np.ndarray]]) -> None:
        """Step every one of these episodes under its action [A]."""
        rows = np.empty((len(due), self.numbers))
        for (episode, action), row in zip(due, rows, strict=True):
            self._advance(episode, action, row)
        rows = _single(rows)
        for (episode, action), row in zip(due, rows, strict=True):
            episode.numbers = row
            episode.action = action.tobytes()
            if episode.over:
                self._release(episode)

    def _advance(self, episode: Episode, action: np.ndarray, row: np.ndarray) -> None:
        env = episode.env
        assert env is not None
        with Boundary(f"{self._facts.name}: step"):
            obs, reward, costs, episode.terminated, truncated = self._facts.outcome(env.step(action))
            self._write(row, env, obs, reward, costs)
        episode.count += 1
        episode.truncated = truncated or episode.count >= self._facts.episode_length

    def _write(self, row: np.ndarray, env: gymnasium.Env, obs: np.ndarray, reward: float, costs: list[float]) -> None:
        """An episode's numbers (float64) into `row`."""
        size = self._facts.observation_size
        row[:size] = obs
        row[size : size + 2] = self._facts.place(env, obs)
        row[size + 2] = reward
        row[size + 3 :] = costs

    def _release(self, episode: Episode) -> None:
        if episode.env is not None:
            self._pool.give(episode.start[4:], episode.env)
            episode.env = None

    def _forget(self) -> None:
        """Close the books of a call: what it began is kept, what is too old is not."""
        if self._begun:
            self._largest = max(self._largest, len(self._begun))
            self._calls.append(self._begun)
            self._begun = []
        while len(self._calls) > CALLS and len(self._episodes) - len(self._calls[0]) >= EPISODES:
            for episode in self._calls.popleft():
                self._release(episode)
                del self._episodes[episode.ticket]
        self._pool.trim(self._largest)


def _answers(episodes: list[Episode], batch: tuple[int, ...]) -> Answers:
    where = np.array([(e.ticket, e.count) for e in episodes], np.int32)
    numbers = np.stack([e.numbers for e in episodes])
    ended = np.array([(e.terminated, e.truncated) for e in episodes])
    return where.reshape(*batch, 2), numbers.reshape(*batch, -1), ended.reshape(*batch, 2)


def _single(numbers: np.ndarray) -> np.ndarray:
    """As float32; what is too large for it is infinite: a world that broke."""
    with np.errstate(over="ignore"):
        return numbers.astype(np.float32)
