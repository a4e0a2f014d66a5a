"""What a critic is fitted to.

With the value of the final observation bootstrapped at truncation, V must obey

    V(s_t) = G_t + γ^{T−t} V(s_T)      for every step t of an episode truncated at T,

G_t being the return-to-go inside the episode. A signal with γ < 1 goes on after a truncation; with γ = 1 it is
counted until the episode's end, where it stops: V there is 0, as it is for any γ where the episode terminated.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation.returns import returns_to_go
from metacpo.rollout import Trajectory


class Targets(eqx.Module):
    """V(s_t) = G_t + ahead_t · V(s_T), for each of s signals; weight is 1 at the steps that count."""

    G: Float[Array, "T B s"]
    ahead: Float[Array, "T B s"]  # γ^{T−t} where the signal goes on after the episode, else 0
    goes_on: Float[Array, "B s"]
    weight: Float[Array, "T B"]
    time: Float[Array, "T B"]  # ∈ [0, 1), the share of the longest episode that has passed
    final_time: Float[Array, " B"]  # that of the final observation: 1 after T steps

    def of(self, signals: slice) -> "Targets":
        """The targets of neighbouring signals."""
        G, ahead, goes_on = self.G[..., signals], self.ahead[..., signals], self.goes_on[..., signals]
        return Targets(G, ahead, goes_on, self.weight, self.time, self.final_time)


def bootstrapped_targets(trajectory: Trajectory, signals: Float[Array, "T B s"], gamma: Float[Array, " s"]) -> Targets:
    """Targets of signals (reward, costs) discounted by their γ."""
    steps, dtype = signals.shape[0], signals.dtype
    over_episodes = jax.vmap(returns_to_go, in_axes=(1, None), out_axes=1)
    truncated = 1.0 - trajectory.terminated.astype(dtype)
    goes_on = jnp.where(gamma < 1, truncated[:, None], 0.0)
    length, t = jnp.sum(trajectory.valid, axis=0), jnp.arange(steps, dtype=dtype)[:, None]
    left = jnp.maximum(length - t, 0.0)  # after the end γ to a negative power could overflow: 0 · ∞ is not 0
    return Targets(
        G=jax.vmap(over_episodes, in_axes=(2, 0), out_axes=2)(signals, gamma),
        ahead=goes_on * gamma ** left[..., None],
        goes_on=goes_on,
        weight=trajectory.valid,
        time=jnp.broadcast_to(t / steps, trajectory.valid.shape),
        final_time=length / steps,
    )
