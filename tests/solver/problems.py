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


def tight_settings():
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-13
    return settings


def _cone_program(cost, rows, bounds, h, delta):
    """min costᵀx  s.t.  rows x ≤ bounds,  ‖Lᵀx‖ ≤ √2δ with H = LLᵀ. Returns x, or None if infeasible."""
    n = cost.shape[0]
    lower = np.linalg.cholesky(h)
    a = sp.csc_matrix(np.vstack([rows, np.zeros((1, n)), -lower.T]))
    rhs = np.concatenate([bounds, [np.sqrt(2 * delta)], np.zeros(n)])
    cones = [clarabel.NonnegativeConeT(len(bounds)), clarabel.SecondOrderConeT(n + 1)]
    answer = clarabel.DefaultSolver(sp.csc_matrix((n, n)), cost, a, rhs, cones, tight_settings()).solve()
    # Near the border it sometimes gives up without a verdict.
    missed = np.max(rows @ answer.x - bounds, initial=0)
    if "Infeasible" in str(answer.status) or missed > 1e-4 * np.max(np.abs(bounds), initial=0):
        return None
    m, x = len(bounds), np.asarray(answer.x)
    binding = np.asarray(answer.z)[:m] > np.asarray(answer.s)[:m]
    if not _ball_binds(answer, m):  # a corner, where nothing is flat
        return x + np.linalg.lstsq(rows[binding], bounds[binding] - rows[binding] @ x, rcond=None)[0]
    return _polished(x, cost, rows[binding], bounds[binding], h, delta)


def _ball_binds(answer, m):
    """The cone after the first m inequalities: its multiplier exceeds its slack."""
    s, z = np.asarray(answer.s), np.asarray(answer.z)
    return z[m] > s[m] - np.linalg.norm(s[m + 1 :])


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
        change = np.linalg.lstsq(jacobian, -residual, rcond=1e-13)[0]  # redundant rows
        x, nu_lam = x + change[:n], nu_lam + change[n:]
    return x


def oracle(g, b, c, h, delta):
    """(x, feasible): the optimum, or the minimiser of bᵀx over the region if no point is feasible."""
    x = _cone_program(g, b[None], np.array([-c]), h, delta)
    if x is not None:
        return x, True
    return _cone_program(b, np.zeros((0, b.shape[0])), np.zeros(0), h, delta), False


# Many rows. (n, m) of the random problems; with n ≤ m the feasible set often has corners, or is empty.
SHAPES = ((24, 16), (2, 8), (3, 3), (5, 8), (6, 2), (8, 5), (20, 4), (20, 8), (40, 6), (60, 8), (60, 3))
EXACT_MANY = CGSettings(rtol=1e-15, max_steps=300)


def problem_rows(g, b, c, h, delta, weight=None):
    return Problem(g, b, c, None if h is None else dense(h), delta, weight)


def random_rows(rng, n, m):
    """(g, b [m, n], c [m], H, δ, weight [m]): c_j between −1.2 and `worst` of the largest change in the region."""
    factor = rng.normal(size=(n, n))
    h = factor @ factor.T / n + 0.1 * np.eye(n)
    g, b = rng.normal(size=n), rng.normal(size=(m, n)) * 10 ** rng.uniform(-1, 1, size=(m, 1))
    # Some g point against the rows, so that several bind.
    g = g - rng.uniform(0, 2) * np.abs(rng.normal(size=m)) @ (b / np.linalg.norm(b, axis=1, keepdims=True))
    delta = 10 ** rng.uniform(-2, 0)
    reach = np.sqrt(2 * delta * np.sum(b * np.linalg.solve(h, b.T).T, axis=1))
    worst = rng.choice([0.0, 0.3, 0.6, 1.2])
    c = rng.uniform(-1.2 if worst < 0.5 else -0.2, worst, size=m) * reach
    return g, b, c, h, np.float64(delta), 10 ** rng.uniform(-1, 1, size=m)


def random_rows_batch(count, n, m, seed=0):
    """The same arrays stacked, in the default dtype."""
    rng = np.random.default_rng([seed, n, m])
    problems = (random_rows(rng, n, m) for _ in range(count))
    return tuple(jnp.asarray(np.stack(a)) for a in zip(*problems, strict=True))


def oracle_rows(g, b, c, h, delta, weight):
    """(x, feasible) for m rows: the optimum, or the minimiser of ½Σ weight_j (c_j + b_jᵀx)₊²/s_j over the region."""
    x = _cone_program(g, b, -c, h, delta)
    if x is not None:
        return x, True
    return _least_violation(b, c, h, delta, weight / np.sum(b * np.linalg.solve(h, b.T).T, axis=1)), False


def _least_violation(b, c, h, delta, w):
    """min ½Σ w_j v_j²  s.t.  c + bx ≤ v, v ≥ 0, ‖Lᵀx‖ ≤ √2δ, as a cone program in (x, v), then polished."""
    (m, n), lower, root = b.shape, np.linalg.cholesky(h), np.sqrt(w)
    rows = np.hstack([root[:, None] * b, -np.eye(m)])  # u = √w v
    a = np.vstack([rows, np.hstack([np.zeros((m, n)), -np.eye(m)]), np.zeros((1, n + m)), np.zeros((n, n + m))])
    a[-n:, :n] = -lower.T
    rhs = np.concatenate([-root * c, np.zeros(m), [np.sqrt(2 * delta)], np.zeros(n)])
    quadratic = sp.csc_matrix(np.block([[np.zeros((n, n + m))], [np.zeros((m, n)), np.eye(m)]]))
    cones = [clarabel.NonnegativeConeT(2 * m), clarabel.SecondOrderConeT(n + 1)]
    answer = clarabel.DefaultSolver(quadratic, np.zeros(n + m), sp.csc_matrix(a), rhs, cones, tight_settings()).solve()
    x = np.asarray(answer.x)[:n]
    if not _ball_binds(answer, 2 * m):  # least squares in the violated rows
        v = c + b @ x > 0
        return x + np.linalg.lstsq(root[v, None] * b[v], -root[v] * (c + b @ x)[v], rcond=None)[0]
    start = x
    for _ in range(6):  # Newton on  bᵀw(c + bx)₊ + λHx = 0, ½xᵀHx = δ
        hx, violation = h @ x, c + b @ x
        slope = w * (violation > 0)
        lam = -(x @ (b.T @ (slope * violation))) / (x @ hx)
        jacobian = np.block([[b.T @ (slope[:, None] * b) + lam * h, hx[:, None]], [hx[None], np.zeros((1, 1))]])
        residual = np.concatenate([b.T @ (slope * violation) + lam * hx, [0.5 * x @ hx - delta]])
        x = x + np.linalg.solve(jacobian, -residual)[:n]
    return x if np.linalg.norm(x - start) < 0.1 * np.linalg.norm(start) else start  # it may diverge
