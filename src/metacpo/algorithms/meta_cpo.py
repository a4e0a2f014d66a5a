"""Meta-CPO (Cho and Sun 2024, arXiv 2312.10230) on one page: the algorithm, its equations, and what computes each.

    input: distribution of tasks p(T), each with limits h_i; start θ; M, K, B; sizes δ, δ_θ
    repeat                                                              training/iteration.py::meta_iteration
      T_1 … T_M ~ p(T)
      for every task i in parallel: φ_i⁰ = θ                            inner_loop.py::run_inner_loop
        for k = 0 … K−1
          D_i^k ~ B episodes of π_{φ_i^k} on T_i
          φ_i^{k+1} = φ_i^k + α · (solution of (1) at φ_i^k, D_i^k)     policy_update.py::update
        D_i^K ~ B episodes of π_{φ_i^K} on T_i
      ∂F/∂θ, ∂G/∂θ by (2), through all K solutions                      meta_objective.py::MetaObjective.rows
      θ ← θ + α · (solution of (3) at θ)                                meta_update.py::meta_update

The paper maximises returns. Here everything is lowered, and x is the change of the parameters.

(1) The local update is CPO's step (Achiam et al. 2017, eqs. 10-14; `inner_update`):

        min_x gᵀx    s.t.    c + bᵀx ≤ 0,    ½xᵀHx ≤ δ
        g = ∇L_R(φ; D),  b = ∇L_C(φ; D),  c = (J_C − h)/T̄,  H = ∇²KL + damping·I     trust_region.py::linearise, metric

    with the solution that `metacpo.solver.solve` computes in closed form (q = gᵀH⁻¹g, r = gᵀH⁻¹b, s = bᵀH⁻¹b)

        x = −H⁻¹(g + νb)/λ,    λ = √((q − r²/s)/(2δ − c²/s)),    ν = max(0, (λc − r)/s)

    where the constraint binds; ν = 0, λ = √(q/2δ) where it does not; x = −√(2δ/s)·H⁻¹b where no x meets it.

(2) The meta-gradient is that of the adapted policies, the Jacobians of all K local updates multiplied (`Exact` in
    meta_gradients.py, by inner_loop.py::differentiable_inner_loop):

        ∂F/∂θ = (1/M) Σ_i (Π_{k=0}^{K−1} ∂φ_i^{k+1}/∂φ_i^k)ᵀ ∇L_R(φ_i^K; D_i^K)
        ∂φ^{k+1}/∂φ^k = I + α(∂x/∂g · ∂g/∂φ + ∂x/∂b · ∂b/∂φ + ∂x/∂c · ∂c/∂φ + ∂x/∂H · ∂H/∂φ + ∂x/∂δ · ∂δ/∂φ)

    and the same for G. ∂x is the derivative of the solution map of (1) by its optimality conditions (solver/step.py),
    in closed form where the paper calls a differentiable cone-program layer. The product is never formed: reverse mode
    pulls one vector per task and row back through the K steps.

(3) The meta-update is the same problem in θ (`outer_update`):

        min_x ∂F/∂θᵀx    s.t.    G + ∂G/∂θ x ≤ 0,    ½xᵀHx ≤ δ_θ,        G = mean_i c_i(φ_i^K)

What differs from the paper, and why (docs/paper_map.md has the tests):

- H is the metric of the KL divergence, that of the paper's theory; the paper's experiments take H = I.
- Tasks are drawn afresh at every meta-iteration; the released code draws a few once and meta-learns these.
- The last gradient in (2) is taken on data D^K of its own; on D^{K−1} it would be that of a policy that has moved on.
- α comes from a line search on the surrogates themselves, and is constant under differentiation.
- A step aims below its limit by what B episodes leave unknown of its cost (`estimation.confidence`), and one that
  repairs a broken limit may be longer than others (`objective_kl_fraction`).
- G may also be every task's own c_i, and those of all steps (`meta.meta_constraints`, `meta.constraint_on`): a mean
  over tasks is met by half of them, and a limit on φ^K says nothing of the way there.
"""

from metacpo.algorithms.algorithm import Algorithm, Parts
from metacpo.algorithms.meta_gradients import META_GRADIENTS
from metacpo.algorithms.objectives import Reward
from metacpo.algorithms.policy_update import PolicyUpdate
from metacpo.algorithms.steps import CPOStep

READS = (
    "meta.meta_gradient",
    "meta.meta_constraints",
    "meta.constraint_on",
    "meta.learned",
    "estimation.outer_confidence",
)


def inner_update(parts: Parts) -> PolicyUpdate:
    """(1): the loss is lowered by CPO's step in the region `inner`."""
    return PolicyUpdate(objective=Reward(), step=CPOStep(), region=parts.inner)


def outer_update(parts: Parts) -> PolicyUpdate:
    """(3): the same step for θ in the region `outer`, with (F, G) in the place of (L_R, c)."""
    return PolicyUpdate(objective=Reward(), step=CPOStep(), region=parts.outer)


def meta_cpo(parts: Parts) -> Algorithm:
    """CPO inside, CPO outside, and the exact meta-gradient between them."""
    return Algorithm(
        inner=inner_update(parts),
        outer=outer_update(parts),
        gradient=META_GRADIENTS[parts.meta.meta_gradient],  # (2)
        constraint_on=parts.meta.constraint_on,
        per_task=parts.meta.meta_constraints == "per_task",
        learned=parts.meta.learned,
        reads=READS,
    )
