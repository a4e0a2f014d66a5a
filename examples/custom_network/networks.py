"""Two networks for the policy: layers with a norm, and a recurrent cell that reads the last steps of the episode.

metacpo train navigation --network examples/custom_network/networks.py:LayerNormMLP
metacpo train navigation --history 4 --network examples/custom_network/networks.py:Recurrent
"""

import equinox as eqx
import jax
import jax.numpy as jnp


class LayerNormMLP(eqx.Module):
    """Two tanh layers, each normalised over its units. The last layer is small, so that the first actions are."""

    layers: list[eqx.nn.Linear]
    norms: list[eqx.nn.LayerNorm]
    action: eqx.nn.Linear

    def __init__(self, observation_size: int, action_size: int, *, key):
        one, two, three = jax.random.split(key, 3)
        self.layers = [eqx.nn.Linear(observation_size, 32, key=one), eqx.nn.Linear(32, 16, key=two)]
        self.norms = [eqx.nn.LayerNorm(32), eqx.nn.LayerNorm(16)]
        self.action = small(eqx.nn.Linear(16, action_size, key=three))

    def __call__(self, z):
        for layer, norm in zip(self.layers, self.norms, strict=True):
            z = jnp.tanh(norm(layer(z)))
        return self.action(z)


class Recurrent(eqx.Module):
    """A GRU over the steps that `--history 4` appends to the observation, and a linear layer over memory and now.

    The observation [O + 4·(O + A + m)] is the present one, then the last (observation, action, costs), the newest
    first. The standard deviation depends on the state too: the network returns its logarithm beside the mean.
    """

    cell: eqx.nn.GRUCell
    action: eqx.nn.Linear
    log_std: eqx.nn.Linear
    present: int = eqx.field(static=True)  # O

    history = 4  # H, of --history
    costs = 1  # m: one constraint, on the sum of the costs

    def __init__(self, observation_size: int, action_size: int, *, key):
        beside = action_size + self.costs
        self.present, rest = divmod(observation_size - self.history * beside, 1 + self.history)
        if rest or self.present < 1:
            raise ValueError(f"{observation_size} observations are not those of --history {self.history}")
        one, two, three = jax.random.split(key, 3)
        self.cell = eqx.nn.GRUCell(self.present + beside, 16, key=one)
        self.action = small(eqx.nn.Linear(16 + self.present, action_size, key=two))
        self.log_std = small(eqx.nn.Linear(16 + self.present, action_size, key=three))

    def __call__(self, z):
        now, past = z[: self.present], z[self.present :].reshape(self.history, -1)
        memory, _ = jax.lax.scan(
            lambda memory, step: (self.cell(step, memory), None), jnp.zeros(self.cell.hidden_size, z.dtype), past[::-1]
        )
        seen = jnp.concatenate([memory, now])
        return self.action(seen), self.log_std(seen) - 0.5  # about 0.6 at first


def small(layer: eqx.nn.Linear) -> eqx.nn.Linear:
    """The layer at a tenth of its weights."""
    return eqx.tree_at(lambda one: (one.weight, one.bias), layer, (0.1 * layer.weight, 0.1 * layer.bias))
