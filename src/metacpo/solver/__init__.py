"""The constrained trust-region step and its derivative, in terms of vectors and operators only.

minimise gᵀx   subject to   c_j + b_jᵀx ≤ 0,   ½ xᵀHx ≤ δ
"""

from metacpo.solver.metric import CGSettings
from metacpo.solver.problem import Case, Problem, Solution
from metacpo.solver.search import backtrack
from metacpo.solver.step import solve

__all__ = ["CGSettings", "Case", "Problem", "Solution", "backtrack", "solve"]
