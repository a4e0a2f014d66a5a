"""The derivative of the step by diffcp, which differentiates the residual map of a cone program.

    minimise gᵀx  subject to  Ax + s = r,  s ∈ ℝ₊ᵐ × SOC,   A = (b; 0; −Lᵀ),  r = (−c, √2δ, 0),  H = LLᵀ

The derivative is as good as the point that it is taken at. An interior-point method stops with slack rows' duals
near 1e-8 and x off by 4e-6 along the ball, and which way depends on the processor's arithmetic; diffcp's default,
LSQR with its default tolerance, adds as much again. Here the point is polished first, and the residual map's
Jacobian, which is small, is solved densely.
"""

import diffcp
import numpy as np
import scipy.sparse as sp

from .problems import oracle_rows


def solution(g, b, c, lower, delta):
    """x [n], the dual y and the slack s [m + n + 1], exact to rounding. Something must be feasible, the ball bind."""
    x, feasible = oracle_rows(g, b, c, lower @ lower.T, delta, np.ones(len(c)))
    assert feasible
    slack, radius, u = -c - b @ x, np.sqrt(2 * delta), lower.T @ x
    binding = np.abs(slack) < 1e-9
    # The rows' duals and the ball's multiplier, from  g + bᵀν + λLu = 0.
    multipliers = np.linalg.lstsq(np.column_stack([b[binding].T, lower @ u]), -g, rcond=None)[0]
    nu, lam = np.zeros(len(c)), multipliers[-1]
    nu[binding] = multipliers[:-1]
    y = np.concatenate([nu, [lam * radius], -lam * u])
    return x, y, np.concatenate([np.where(binding, 0.0, slack), [radius], u])


def gradient(w, g, b, c, lower, delta):
    """∂(wᵀx)/∂(g, b, c, L, δ), L lower triangular."""
    m, n = b.shape
    a = np.vstack([b, np.zeros((1, n)), -lower.T])
    a = np.where(a == 0, 1e-300, a)  # every entry is an input
    rhs = np.concatenate([-c, [np.sqrt(2 * delta)], np.zeros(n)])
    start = solution(g, b, c, lower, delta)
    _assert_optimal(a, rhs, g, m, start)
    # SCS is the solver that takes a start: it finds nothing to do there, or warns, and a warning is an error.
    x, y, s, _, adjoint = diffcp.solve_and_derivative(
        sp.csc_matrix(a), rhs, g, {"l": m, "q": [n + 1]}, start, mode="dense", solve_method="SCS", eps=1e-12
    )
    for moved, at in zip((x, y, s), start, strict=True):
        np.testing.assert_allclose(moved, at, rtol=0, atol=1e-12 * (1 + np.max(np.abs(at))))
    by_a, by_rhs, by_g = adjoint(w, np.zeros_like(y), np.zeros_like(s))
    by_a = by_a.toarray()
    return by_g, by_a[:m], -by_rhs[:m], np.tril(-by_a[m + 1 :].T), by_rhs[m] / np.sqrt(2 * delta)


def _assert_optimal(a, rhs, g, m, point):
    """The optimality conditions, which no solver is asked about; a row without its dual would be a kink."""
    x, y, s = point
    np.testing.assert_allclose(a @ x + s, rhs, rtol=0, atol=1e-12 * (1 + np.max(np.abs(rhs))))
    np.testing.assert_allclose(a.T @ y, -g, rtol=0, atol=1e-12 * (1 + np.max(np.abs(g))))
    assert np.all((y[:m] > 0) ^ (s[:m] > 0)), (y[:m], s[:m])
    assert y[m] > 0  # the ball's; its y and s are opposite by construction
