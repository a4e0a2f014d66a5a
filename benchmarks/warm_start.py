"""Would conjugate gradients gain from the last update's solution?

    python benchmarks/warm_start.py

Iterations to a relative residual of 1e-4 in a policy's KL metric (n ≈ 1,500), from 0 and from the last update's H⁻¹g:
the policy one step of KL 0.01 on, other states, and a gradient whose cosine to the last one is given.
"""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import cg
from solver import DAMPING, STATES, kl_problem


def main() -> None:
    policy, phi, z, g, *_ = kl_problem(1500, 1)
    rng = np.random.default_rng(1)

    def metric(phi, z) -> np.ndarray:
        mean = policy.fisher(phi, z, jnp.ones(STATES) / STATES, DAMPING)
        return np.asarray(jax.vmap(mean.mv)(jnp.eye(policy.size)), np.float64)

    g = np.asarray(g, np.float64)
    y = np.linalg.solve(metric(phi, z), g)
    step = -y * np.sqrt(0.02 / (g @ y))
    H = metric(phi + jnp.asarray(step, jnp.float32), jnp.asarray(rng.normal(size=z.shape), jnp.float32))

    def iterations(v: np.ndarray, start: np.ndarray | None) -> int:
        seen = []
        cg(H, v, x0=start, rtol=1e-4, maxiter=1000, callback=seen.append)
        return len(seen)

    for cosine in (1.0, 0.99, 0.9, 0.5):
        noise = rng.normal(size=g.size)
        noise -= noise @ g / (g @ g) * g
        v = cosine * g + np.sqrt(1 - cosine**2) * noise * np.linalg.norm(g) / np.linalg.norm(noise)
        print(f"cosine {cosine:4}: {iterations(v, None)} iterations from 0, {iterations(v, y)} from the last solution")


if __name__ == "__main__":
    main()
