"""The constrained trust-region step and its derivative, in terms of vectors and operators only.

minimise gᵀx   subject to   c_j + b_jᵀx ≤ 0,   ½ xᵀHx ≤ δ
"""

from metacpo.solver.adjoint import FirstOrder, Implicit, Unrolled
from metacpo.solver.cg import CGSettings, Solved, diagonal, inverse_times, jacobi, relative_residual, row_sizes
from metacpo.solver.line_search import backtrack
from metacpo.solver.nearest import nearest_feasible
from metacpo.solver.problem import Case, Problem, Solution, Stats
from metacpo.solver.step import solve

__all__ = [
    "CGSettings",
    "Case",
    "FirstOrder",
    "Implicit",
    "Problem",
    "Solution",
    "Solved",
    "Stats",
    "Unrolled",
    "backtrack",
    "diagonal",
    "inverse_times",
    "jacobi",
    "nearest_feasible",
    "relative_residual",
    "row_sizes",
    "solve",
]
