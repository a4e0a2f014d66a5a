"""How far the nearest point is that meets all constraints: what repairing broken ones costs."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.solver.dense import MaskedSystem
from metacpo.solver.pivots import positive_multipliers


def nearest_feasible(S: Float[Array, "m m"], c: Float[Array, " m"]) -> Float[Array, ""]:
    """min ½xᵀHx over all x with c + Bx ≤ 0, from S = BH⁻¹Bᵀ; ∞ where no x meets every row.

    The minimiser is x = −H⁻¹Bᵀμ with μ ≥ 0, positive only in rows A that bind there, S_AA μ_A = c_A. Hence

        ½xᵀHx = ½ μᵀSμ = ½ c_Aᵀ S_AA⁻¹ c_A;        one row: max(0, c)²/2s.

    Rows with b_j = 0 take no part: no x changes them. A is constant under differentiation, where it is exact but for
    the kinks at which A changes.
    """
    m = c.shape[0]
    if m == 0:
        return jnp.zeros((), S.dtype)
    s = jnp.diagonal(jax.lax.stop_gradient(S))
    allowed = s > 0
    size = jnp.sqrt(jnp.where(allowed, s, 1))
    K, d = S / (size * size[:, None]), jnp.where(allowed, c / size, 0)
    if m == 1:
        return 0.5 * jnp.where(allowed[0], jnp.maximum(d[0], 0) ** 2 / jnp.where(allowed[0], K[0, 0], 1), 0)
    fixed, goal = jax.lax.stop_gradient(((K + K.T) / 2, d))
    # In units of the largest violation, so that the tolerances of the search are relative to it.
    unit = jnp.maximum(jnp.max(goal), jnp.finfo(S.dtype).tiny)
    found = positive_multipliers(fixed, (goal / unit)[:, None], jnp.ones(1, S.dtype), allowed)
    mu = MaskedSystem.of(K, found.rows).solve(d[:, None])[:, 0]
    return jnp.where(found.empty, jnp.inf, 0.5 * jnp.sum(jnp.where(found.rows, d, 0) * mu))
