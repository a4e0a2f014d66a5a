"""An environment that goes wrong in one chosen way, and a small learner on it.

The world is a point on a line that moves by a tenth of the action; the reward is the action, and every step at a place
> 0 costs 1. A fault replaces numbers of single steps, worlds or tasks. Which task is hit is a parameter of the task,
`struck`: 1 for about half of the tasks, so that the others can be seen to go on. The fault is a number, which may be
traced: one compiled program serves them all.
"""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp

from metacpo.algorithms.algorithm import Algorithm
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.settings import MetaSettings
from metacpo.algorithms.trust_region import TrustRegionSettings
from metacpo.envs import State
from metacpo.envs.tasks import Parameter, Task, TaskDistribution
from metacpo.estimation import EstimationSettings
from metacpo.policies import GaussianPolicy
from metacpo.training.setup import TrainingSetup

WHEN = 3  # the step at which a fault of one step happens
HUGE = 1e30  # finite, but its square is not

# name -> (what is wrong, in words)
FAULTS = {
    "none": "nothing",
    "nan-world": "the observation of every second world is NaN from step WHEN on",
    "nan-start": "every second world is NaN after its reset",
    "nan-task": "every world of a struck task is NaN after its reset",
    "nan-all": "every world of every task is NaN after its reset",
    "inf-cost": "the cost of step WHEN is infinite in every second world",
    "nan-reward": "the reward of step WHEN is NaN in every second world",
    "huge-reward": "the reward is finite but its square is not, in every world of a struck task",
    "huge-observation": "the observation is finite but its square is not, in every world of a struck task",
    "huge-cost": "the cost of every step is finite, but not its sum over an episode",
    "huge-place": "the first observation is finite but its square is not, everywhere",
    "constant-reward": "the reward is 1 in every step",
    "no-cost": "nothing costs",
    "all-cost": "every step costs 1",
    "one-step": "every episode terminates after its first step",
    "endless": "no world says that its episode is over",
    "critic": "nothing in the world, but every critic explodes (see test_faults.py)",
    "gradient": "nothing in the world, but the meta-gradient through struck tasks is NaN (see test_faults.py)",
}
CODES = {name: code for code, name in enumerate(FAULTS)}


@dataclasses.dataclass(frozen=True)
class Faulty:
    """The line with one fault of FAULTS. Observation [3]: place, share of the time that has passed, which world."""

    fault: int | jax.Array = 0  # of CODES
    observation_size = 3
    action_size = 1
    episode_length = 8
    cost_names = ("right",)

    @property
    def tasks(self) -> TaskDistribution:
        parameters = {"struck": Parameter(default=1.0, low=0.0, high=1.0, unit="")}

        def draw(key):
            return {"struck": jax.random.bernoulli(key).astype(jnp.float32)}

        return TaskDistribution(parameters, {"train": draw, "held-out": draw, "shifted": draw}, (2.0,))

    def reset(self, task: Task, key) -> State:
        where, which = jax.random.split(key)
        odd = jax.random.bernoulli(which).astype(jnp.float32)
        world = jnp.stack([jax.random.normal(where), jnp.zeros(()), odd])
        state = self._state(task, world, jnp.zeros(()), 0)
        obs = self._replaced("nan-start", odd > 0, jnp.nan, state.obs)
        obs = self._replaced("nan-task", task.params["struck"] > 0, jnp.nan, obs)
        return eqx.tree_at(lambda s: s.obs, state, self._replaced("nan-all", True, jnp.nan, obs))

    def step(self, task: Task, state: State, action) -> State:
        place, time, odd = state.world
        world = jnp.stack([place + 0.1 * action[0], time + 1 / self.episode_length, odd])
        return self._state(task, world, action[0], state.steps + 1)

    def position(self, state: State):
        return state.world[..., :2]

    def _replaced(self, fault: str, where, value, usual):
        """`value` where this is the environment's fault and `where` holds."""
        return jnp.where(jnp.asarray(self.fault == CODES[fault]) & where, value, usual)

    def _state(self, task: Task, world, reward, steps) -> State:
        steps = jnp.asarray(steps, jnp.int32)
        struck, odd, now = task.params["struck"] > 0, world[2] > 0, steps == WHEN
        cost = jnp.where(world[0] > 0, 1.0, 0.0)
        fault = self._replaced
        obs = fault("nan-world", odd & (steps >= WHEN), jnp.nan, world)
        obs = fault("huge-observation", struck, HUGE, obs)
        obs = obs.at[0].set(fault("huge-place", True, HUGE * world[0], obs[0]))
        reward = fault("nan-reward", odd & now, jnp.nan, reward)
        reward = fault("huge-reward", struck, HUGE * (1 + world[0]), fault("constant-reward", True, 1.0, reward))
        cost = fault("inf-cost", odd & now, jnp.inf, fault("no-cost", True, 0.0, fault("all-cost", True, 1.0, cost)))
        cost = fault("huge-cost", True, 1e38, cost)
        return State(
            world=world,
            obs=obs,
            reward=jnp.asarray(reward, jnp.float32),
            cost=jnp.asarray(cost, jnp.float32)[None],
            terminated=fault("one-step", steps >= 1, True, jnp.asarray(False)),
            truncated=fault("endless", True, False, steps >= self.episode_length),
            steps=steps,
        )


def learner(fault: int | jax.Array, damping: float = 0.1) -> TrainingSetup:
    """Meta-CPO with K = 2, M = 4 and a tiny policy on the line with this fault (one of CODES)."""
    world = Faulty(fault)
    region = TrustRegionSettings(max_kl=0.05, damping=damping, fisher_stride=1)
    rule = PolicyUpdate(region=region)
    return TrainingSetup(
        env=world,
        tasks=world.tasks,
        policy=GaussianPolicy(world.observation_size, world.action_size, (4,), 0.5),
        estimation=EstimationSettings(confidence=0.9),
        meta=MetaSettings(tasks=4, steps=2, episodes=6),
        algorithm=Algorithm(inner=rule, outer=rule),
    )
