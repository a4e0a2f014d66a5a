"""Random problems, and their solution by an interior-point method that shares no code with the library."""

import clarabel
import jax.numpy as jnp
import lineax as lx
import numpy as np
import scipy.sparse as sp

from metacpo.solver import CGSettings, Problem

EXACT = CGSettings(rtol=1e-14, max_steps=60)


def dense(matrix):
    """H as an operator."""
    return lx.MatrixLinearOperator(matrix, lx.positive_semidefinite_tag)


def problem(g, b, c, h, delta):
    """One constraint; b [n] and c [] get their leading axis here, H [n, n] or None becomes an operator."""
    return Problem(g, b[None], c[None], None if h is None else dense(h), delta)


def random_problem(rng, n=6):
    """(g, b, c, H, δ) whose c lies between −1.4 and 1.4 of the largest |bᵀx| that the region allows."""
    factor = rng.normal(size=(n, n))
    h = factor @ factor.T / n + 0.1 * np.eye(n)
    g, b = rng.normal(size=n), rng.normal(size=n) * 10 ** rng.uniform(-1, 1)
    delta = 10 ** rng.uniform(-2, 0)
    reach = np.sqrt(2 * delta * b @ np.linalg.solve(h, b))
    return g, b, np.float64(rng.uniform(-1.4, 1.4) * reach), h, np.float64(delta)


def random_batch(count=1000, seed=0):
    """The same five arrays stacked over `count` problems, in the default dtype."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(np.stack(a)) for a in zip(*(random_problem(rng) for _ in range(count)), strict=True))


def _cone_program(cost, rows, bounds, h, delta):
    """min costᵀx  s.t.  rows x ≤ bounds,  ‖Lᵀx‖ ≤ √2δ with H = LLᵀ. Returns x, or None if infeasible."""
    n = cost.shape[0]
    lower = np.linalg.cholesky(h)
    a = sp.csc_matrix(np.vstack([rows, np.zeros((1, n)), -lower.T]))
    rhs = np.concatenate([bounds, [np.sqrt(2 * delta)], np.zeros(n)])
    cones = [clarabel.NonnegativeConeT(len(bounds)), clarabel.SecondOrderConeT(n + 1)]
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
    answer = clarabel.DefaultSolver(sp.csc_matrix((n, n)), cost, a, rhs, cones, settings).solve()
    if "Infeasible" in str(answer.status):
        return None
    m = len(bounds)
    binding = np.asarray(answer.z)[:m] > np.asarray(answer.s)[:m]
    return _polished(np.asarray(answer.x), cost, rows[binding], bounds[binding], h, delta)


def _polished(x, cost, rows, bounds, h, delta):
    """x after two Newton steps on the optimality conditions of the binding constraints, ball included.

        cost + rowsᵀν + λHx = 0,   rows x = bounds,   ½xᵀHx = δ

    The objective is flat along the ball: a relative gap of 1e-11, which is what the method reaches, leaves
    errors of 4e-6 in x. One step squares them.
    """
    n, k = len(x), len(bounds)
    nu_lam = np.linalg.lstsq(np.column_stack([rows.T, h @ x]), -cost, rcond=None)[0]
    for _ in range(2):
        nu, lam, hx = nu_lam[:k], nu_lam[k], h @ x
        normals = np.vstack([rows, hx])
        jacobian = np.block([[lam * h, normals.T], [normals, np.zeros((k + 1, k + 1))]])
        residual = np.concatenate([cost + rows.T @ nu + lam * hx, rows @ x - bounds, [0.5 * x @ hx - delta]])
        change = np.linalg.solve(jacobian, -residual)
        x, nu_lam = x + change[:n], nu_lam + change[n:]
    return x


def oracle(g, b, c, h, delta):
    """(x, feasible): the optimum, or the minimiser of bᵀx over the region if no point is feasible."""
    x = _cone_program(g, b[None], np.array([-c]), h, delta)
    if x is not None:
        return x, True
    return _cone_program(b, np.zeros((0, b.shape[0])), np.zeros(0), h, delta), False
