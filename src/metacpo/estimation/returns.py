"""Returns, costs and advantages of one trajectory a call; batching is the caller's vmap."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def discounts(gamma: float, length: int, dtype=jnp.float32) -> Float[Array, " T"]:
    """γᵗ for t = 0..T−1."""
    return jnp.asarray(gamma, dtype) ** jnp.arange(length, dtype=dtype)


def gae(
    r: Float[Array, " T"],
    v: Float[Array, " T"],
    v_final: Float[Array, ""],
    valid: Float[Array, " T"],
    terminated: Bool[Array, ""],
    discount: tuple[Float[Array, ""] | float, Float[Array, ""] | float],
) -> Float[Array, " T"]:
    """Generalised advantage estimate of a reward or a cost (Schulman et al. 2016, eq. 16).

    δ_t = r_t + γ V_{t+1} − V_t,    Â_t = δ_t + γλ Â_{t+1},    discount = (γ, λ)

    V after the last valid step is v_final, the value of the final observation, if the episode was truncated,
    and 0 if it was terminated. Invalid steps get Â = 0 and pass nothing back.
    """
    gamma, lam = discount
    follows = jnp.append(valid[1:], 0.0)  # 1 where step t+1 belongs to the episode too
    v_end = jnp.where(terminated, 0.0, v_final)
    v_next = jnp.where(follows > 0, jnp.append(v[1:], v_final), v_end)
    delta = valid * (r + gamma * v_next - v)

    def back(advantage: Float[Array, ""], step: tuple[Array, Array]):
        delta_t, follows_t = step
        advantage = delta_t + gamma * lam * follows_t * advantage
        return advantage, advantage

    return jax.lax.scan(back, jnp.zeros_like(v_final), (delta, follows), reverse=True)[1]


def returns_to_go(r: Float[Array, " T"], gamma: Float[Array, ""] | float) -> Float[Array, " T"]:
    """G_t = Σ_{k≥t} γ^{k−t} r_k over the episode's own steps (nothing bootstrapped); r is 0 after its end."""

    def back(G: Float[Array, ""], r_t: Float[Array, ""]):
        G = r_t + gamma * G
        return G, G

    return jax.lax.scan(back, jnp.zeros_like(r[0]), r, reverse=True)[1]
