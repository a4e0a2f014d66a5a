"""An environment round another one: what it does not change is the inner one's."""

from jaxtyping import Array, Float, Key

from metacpo.envs.base import CostKind, Environment, State, action_bound, cost_kind, position_of
from metacpo.envs.scene import Scene, scene_of
from metacpo.envs.tasks import Task, TaskDistribution


class Wrapped:
    """The inner environment `env` as it is; a subclass says what of it is seen otherwise.

    `inner` undoes what the subclass did to a state, as far as the inner environment needs it to go on.
    """

    def __init__(self, env: Environment):
        self.env = env

    @property
    def observation_size(self) -> int:
        return self.env.observation_size

    @property
    def action_size(self) -> int:
        return self.env.action_size

    @property
    def action_bound(self) -> float:
        return action_bound(self.env)

    @property
    def cost_kind(self) -> CostKind:
        return cost_kind(self.env)

    @property
    def episode_length(self) -> int:
        return self.env.episode_length

    @property
    def cost_names(self) -> tuple[str, ...]:
        return self.env.cost_names

    @property
    def tasks(self) -> TaskDistribution:
        return self.env.tasks

    def inner(self, state: State) -> State:
        return state

    def reset(self, task: Task, key: Key[Array, ""]) -> State:
        return self.env.reset(task, key)

    def step(self, task: Task, state: State, action: Float[Array, " A"]) -> State:
        return self.env.step(task, self.inner(state), action)

    def position(self, state: State) -> Float[Array, "*batch 2"]:
        return position_of(self.env, self.inner(state))

    def scene(self, task: Task, state: State) -> Scene:
        return scene_of(self.env, task, self.inner(state))


def innermost(env: Environment, state: State | None = None) -> tuple[Environment, State | None]:
    """The environment under all wrappers, and one of its states."""
    while isinstance(env, Wrapped):
        env, state = env.env, None if state is None else env.inner(state)
    return env, state


def has_position(env: Environment) -> bool:
    """Whether the environment says where its worlds are, under wrappers too."""
    return hasattr(innermost(env)[0], "position")
