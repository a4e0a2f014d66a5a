"""What a training's environment steps pay for: how many iterations of which size.

    steps of one iteration = M tasks × (K + 1) rollouts × B episodes × T steps an episode

K = 0 in the warm-up and for algorithms that do not adapt while they train: the same steps are more iterations there.
"""

from dataclasses import dataclass

from metacpo.config.reading import ConfigError
from metacpo.config.schema import Config
from metacpo.training.setup import TrainingSetup, warmup


@dataclass(frozen=True)
class Budget:
    """Iterations, the warm-up's first, and environment steps of one iteration of either kind.

    Steps are what is planned: an episode that ends early uses fewer, and metrics.csv counts those that were used.
    """

    warmup_iterations: int
    meta_iterations: int
    warmup_steps: int
    meta_steps: int

    @property
    def iterations(self) -> int:
        return self.warmup_iterations + self.meta_iterations

    @property
    def steps(self) -> int:
        return self.steps_until(self.iterations)

    def steps_until(self, iteration: int) -> int:
        """Planned environment steps of the iterations 1 to `iteration`."""
        first = min(iteration, self.warmup_iterations)
        return first * self.warmup_steps + (iteration - first) * self.meta_steps


def plan(config: Config, setup: TrainingSetup) -> Budget:
    """The budget of a training of this setup. Raises ConfigError where total_steps pays for no iteration.

    The warm-up is paid first: as long as the steps do not pay for all of it, there are no other iterations.
    """
    sizes = steps_of_one(warmup(setup, config.warmup)), steps_of_one(setup)
    if config.iterations is not None:
        first = min(config.warmup.iterations, config.iterations)
        return Budget(first, config.iterations - first, *sizes)
    first = min(config.warmup.iterations, config.total_steps // sizes[0])
    whole = first == config.warmup.iterations
    rest = (config.total_steps - first * sizes[0]) // sizes[1] if whole else 0
    if first + rest == 0:
        one = warmup(setup, config.warmup) if config.warmup.iterations else setup
        raise ConfigError(
            f"total_steps: {config.total_steps} pays for no iteration; "
            f"allowed: at least {steps_of_one(one)} ({_factors(one)}), or --iterations 0"
        )
    return Budget(first, rest, *sizes)


def steps_of_one(setup: TrainingSetup) -> int:
    """Environment steps of one iteration whose episodes all last as long as they may."""
    meta = setup.meta
    return meta.tasks * (meta.steps + 1) * meta.episodes * setup.env.episode_length


def _factors(setup: TrainingSetup) -> str:
    """The product that is the steps of one iteration, in words."""
    meta = setup.meta
    rollouts = f"{meta.steps + 1} rollouts × " if meta.steps else ""
    return f"{meta.tasks} tasks × {rollouts}{meta.episodes} episodes × {setup.env.episode_length} steps"
