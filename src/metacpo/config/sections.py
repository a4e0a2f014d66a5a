"""Settings of the parts of a run that belong to no algorithm: the warm-up and the adaptation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class WarmupSettings:
    """Pooled tasks (K = 0) for the first iterations: K + 1 times cheaper while there is nothing to adapt yet.

    M tasks with B episodes each; max_kl and damping are those of the outer step meanwhile, and confidence its
    `outer_confidence`: a policy that must still learn to move needs the whole limit for it.
    """

    iterations: int = 0
    tasks: int = 20
    episodes: int = 8
    max_kl: float = 0.03
    damping: float = 0.3
    confidence: float = 0.5


@dataclass(frozen=True)
class AdaptationSettings:
    """K updates from `episodes` episodes each, on each of `tasks` tasks a split."""

    steps: int = 5
    episodes: int = 20
    tasks: int = 20
