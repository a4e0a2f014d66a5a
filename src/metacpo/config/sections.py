"""Settings of the parts of a run that belong to no algorithm: the warm-up and the adaptation."""

from dataclasses import dataclass
from typing import Annotated

from metacpo.runtime.numeric import Range


@dataclass(frozen=True)
class WarmupSettings:
    """Pooled tasks (K = 0) for the first iterations: K + 1 times cheaper while there is nothing to adapt yet.

    M tasks with B episodes each; max_kl and damping are those of the outer step meanwhile, and confidence its
    `outer_confidence`: a policy that must still learn to move needs the whole limit for it.
    """

    iterations: Annotated[int, Range("[0, inf)")] = 0
    tasks: Annotated[int, Range("[1, inf)")] = 20
    episodes: Annotated[int, Range("[1, inf)")] = 8
    max_kl: Annotated[float, Range("(0, inf)")] = 0.03
    damping: Annotated[float, Range("[0, inf)")] = 0.3
    confidence: Annotated[float, Range("(0, 1)")] = 0.5


@dataclass(frozen=True)
class AdaptationSettings:
    """K updates from `episodes` episodes each, on each of `tasks` tasks a split."""

    steps: Annotated[int, Range("[0, inf)")] = 5
    episodes: Annotated[int, Range("[1, inf)")] = 20
    tasks: Annotated[int, Range("[1, inf)")] = 20
