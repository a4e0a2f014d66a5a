"""The constrained trust-region step and its derivative, in terms of vectors and operators only.

minimise gᵀx   subject to   c_j + b_jᵀx ≤ 0,   ½ xᵀHx ≤ δ
"""

from metacpo.solver.cg import CGSettings, Solved, inverse_times, relative_residual, row_sizes
from metacpo.solver.line_search import backtrack
from metacpo.solver.problem import Case, Problem, Solution, Stats
from metacpo.solver.rows import nearest_feasible
from metacpo.solver.step import solve

__all__ = [
    "CGSettings",
    "Case",
    "Problem",
    "Solution",
    "Solved",
    "Stats",
    "backtrack",
    "inverse_times",
    "nearest_feasible",
    "relative_residual",
    "row_sizes",
    "solve",
]
