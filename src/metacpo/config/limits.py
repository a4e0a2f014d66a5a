"""The limits of m constraints, given as one for all of them or as one for each."""

from metacpo.config.reading import ConfigError

CostLimit = float | tuple[float, ...]  # one for all constraints, or one for each


def limits(cost_limit: CostLimit, names: tuple[str, ...]) -> tuple[float, ...]:
    """The limit of each constraint, from one for all or one for each. Raises ConfigError for another number of them."""
    if not isinstance(cost_limit, tuple):
        return (cost_limit,) * len(names)
    if len(cost_limit) != len(names):
        wanted = f"one for all, or {len(names)} ({', '.join(names)})"
        raise ConfigError(f"cost_limit: {list(cost_limit)!r} has {len(cost_limit)} numbers; wanted: {wanted}")
    return cost_limit


def check_factors(factors: tuple[float, ...]) -> None:
    """Raises ConfigError unless these are the two ends of the range of a task's share of the limit."""
    if len(factors) != 2 or factors[0] > factors[1]:
        raise ConfigError(f"limit_factors: {list(factors)!r} is not [low, high] with low <= high")
