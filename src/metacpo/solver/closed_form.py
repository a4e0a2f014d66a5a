"""The step with one row, in closed form; and the roots, bounded in slope, that the closed form of m rows takes too.

    minimise gᵀx   subject to   c + bᵀx ≤ 0  (multiplier ν),   ½ xᵀHx ≤ δ  (multiplier λ)

The Lagrangian is stationary at  x = −H⁻¹(g + νb)/λ.  With

    q = gᵀH⁻¹g,   r = gᵀH⁻¹b,   s = bᵀH⁻¹b,   A = q − r²/s,   B = 2δ − c²/s,

- *slack* (ν = 0): xᵀHx = q/λ² = 2δ gives λ = √(q/2δ), x = −√(2δ/q)H⁻¹g, and there c + bᵀx = c − r/λ.
- *binding* (bᵀx = −c): (r + νs)/λ = c gives ν = (λc − r)/s, so that
  x = −H⁻¹(g − (r/s)b)/λ − (c/s)H⁻¹b, two parts orthogonal in H, of squared lengths A/λ² and c²/s;
  A/λ² + c²/s = 2δ gives λ = √(A/B), x = −√B·H⁻¹(g − (r/s)b)/√A − (c/s)H⁻¹b.
- *infeasible*: min bᵀx over the ball is −√(2δs); when c exceeds √(2δs), B < 0 and no x is feasible. x = −√(2δ/s)H⁻¹b
  minimises bᵀx, with ν = 1 and λ = √(s/2δ), and with it the violation ½w(c + bᵀx)₊²/s, whose slope in bᵀx is
  σ = w(c − √(2δs))/s: the violation has ν = σ and λ = σ√(s/2δ).
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from metacpo.solver.dense import dot
from metacpo.solver.problem import Answer, Case


@jax.custom_jvp
def bounded_sqrt(x: Float[Array, ""], floor: Float[Array, ""]) -> Float[Array, ""]:
    """√max(x, 0), with slope 1 / (2√max(x, floor)): that of √x for x ≥ floor, and bounded where that is not.

    `floor` > 0 is constant under differentiation. Both modes work, to any order.
    """
    return jnp.sqrt(jnp.maximum(x, 0))


@bounded_sqrt.defjvp
def _bounded_sqrt_jvp(primals, tangents):
    x, floor = primals
    dx, _ = tangents
    return bounded_sqrt(x, floor), dx / (2 * jnp.sqrt(jnp.maximum(x, floor)))


@jax.custom_jvp
def bounded_quotient(
    a: Float[Array, " *k"], x: Float[Array, ""], floor: Float[Array, ""], tiny: Float[Array, ""]
) -> Float[Array, " *k"]:
    """a / √max(x, tiny), with differential da/√z − (a/√z) dx/2z at z = max(x, floor).

    `tiny` ≤ `floor` is the rounding error of x: where x vanishes and a with it, the quotient is 0.
    """
    return a / jnp.sqrt(jnp.maximum(x, tiny))


@bounded_quotient.defjvp
def _bounded_quotient_jvp(primals, tangents):
    a, x, floor, tiny = primals
    da, dx, _, _ = tangents
    z = jnp.maximum(x, floor)
    return bounded_quotient(a, x, floor, tiny), da / jnp.sqrt(z) - (a / jnp.sqrt(z)) * (dx / (2 * z))


class Roots(eqx.Module):
    """√A and √B of the rows that bind, A ≤ q and B ≤ 2δ: the slopes are those at the floors at least.

    As B → 0 the true λ and ν grow without bound; they are evaluated at `B_tiny` at least.
    """

    A: Float[Array, ""]
    B: Float[Array, ""]
    A_floor: Float[Array, ""]
    B_floor: Float[Array, ""]
    A_tiny: Float[Array, ""]
    B_tiny: Float[Array, ""]

    @staticmethod
    def of(
        A: Float[Array, ""], B: Float[Array, ""], q: Float[Array, ""], delta: Float[Array, ""], floor: float
    ) -> "Roots":
        """`floor` in (0, 1): exact slopes for A ≥ floor·q and B ≥ floor·2δ."""
        rounding = 100 * float(jnp.finfo(q.dtype).eps)
        return Roots(A, B, floor * q, floor * 2 * delta, rounding * q, rounding * 2 * delta)

    @property
    def ratio(self) -> Float[Array, ""]:
        """√(A/B) = λ."""
        return bounded_quotient(bounded_sqrt(self.A, self.A_floor), self.B, self.B_floor, self.B_tiny)

    def scaled(self, d: Float[Array, " n"]) -> Float[Array, " n"]:
        """√B·d/√A, of length √B in H for the d = H⁻¹(g − B_Aᵀρ) with dᵀHd = A."""
        along = bounded_quotient(d, self.A, self.A_floor, self.A_tiny)
        return bounded_sqrt(self.B, self.B_floor) * along

    @property
    def clipped(self) -> Bool[Array, ""]:
        """A slope is not the true one."""
        return (self.A < self.A_floor) | (self.B < self.B_floor)

    def condition(self, q: Float[Array, ""], delta: Float[Array, ""]) -> Float[Array, ""]:
        """By how much the slopes change, relatively, when y does: see `error_bounds.gradient_error`."""
        return jnp.sqrt(q / jnp.maximum(self.A, self.A_floor)) + 2 * delta / jnp.maximum(self.B, self.B_floor)


def cancelled(A: Float[Array, ""], d: Float[Array, " n"], hd: Float[Array, " n"]) -> Float[Array, ""]:
    """A = q − rᵀρ = dᵀHd: the value of the second form, the derivative of the first.

    They agree for exact y = H⁻¹v. For a y that stopped early the first can be near 0, or below it, although d is
    long, and a step along d/√A would be longer than the region by orders of magnitude.
    """
    return A + jax.lax.stop_gradient(dot(d, hd) - A)


class Scalars(eqx.Module):
    """The numbers that decide everything, q, s, A ≥ 0 and δ > 0, signs as in the module's formulas.

    A is given, not computed here, because q − r²/s cancels: see `cancelled`. Only used if binding.
    """

    q: Float[Array, ""]
    r: Float[Array, ""]
    s: Float[Array, ""]
    c: Float[Array, ""]
    delta: Float[Array, ""]
    A: Float[Array, ""]


def solve_one(
    rhs: Float[Array, "2 n"],
    y: Float[Array, "2 n"],
    hy: Float[Array, "2 n"],
    c: Float[Array, ""],
    delta: Float[Array, ""],
    weight: Float[Array, ""],
    derivative_floor: float,
) -> tuple[Answer, Bool[Array, ""]]:
    """The step from rhs = (g, b), y = H⁻¹(g, b) and Hy; and whether H is positive along both."""
    (g, b), (y_g, y_b), (hy_g, hy_b) = rhs, y, hy
    p = _scalars(rhs, y, hy, c, delta)
    definite = ((p.q > 0) | jnp.all(g == 0)) & ((p.s > 0) | jnp.all(b == 0))
    case = classify(jax.lax.stop_gradient(p))
    binding, infeasible = binds(case), case == Case.INFEASIBLE
    lam, nu, roots = multipliers(p, case, derivative_floor)
    no_g = (p.q <= 0) & ~infeasible
    no_b = (p.s <= 0) & (c >= 0)
    answer = Answer(
        x=_primal(y_g, y_b, p, roots, case),
        # (Hy_g, Hy_b) in place of (y_g, y_b) gives Hx.
        hx=jax.lax.stop_gradient(_primal(hy_g, hy_b, p, roots, case)),
        lam=lam,
        nu=nu[None],
        unit=jnp.where(infeasible, violation_slope(p, case, weight), 1),
        case=case,
        active=(binding | (infeasible & (p.s > 0)))[None],
        derivative_clipped=(binding & roots.clipped) | no_g | no_b,
        condition=jnp.where(binding, roots.condition(p.q, delta), 1),
        pivots=jnp.int32(0),
        converged=jnp.asarray(True),
    )
    return answer, definite


def binds(case: Int[Array, ""]) -> Bool[Array, ""]:
    """The step lies on the constraint's boundary, c + bᵀx = 0."""
    return (case == Case.RECOVERING) | (case == Case.BINDING)


def classify(p: Scalars) -> Int[Array, ""]:
    """The `Case` (0..4). s = 0 means b = 0: with c > 0 nothing helps, otherwise nothing is asked."""
    q, r, s, c, delta = p.q, p.r, _positive(p.s), p.c, p.delta
    B = 2 * delta - c**2 / s
    # The slack step is −√(2δ/q) H⁻¹g, and 0 for g = 0.
    value_at_slack = c - jnp.where(q > 0, jnp.sqrt(2 * delta / _positive(q)), 0) * r
    infeasible = (c > 0) & (B < 0)
    binding = (value_at_slack > 0) & (B >= 0)
    case = jnp.where(
        infeasible,
        Case.INFEASIBLE,
        jnp.where(binding, jnp.where(c > 0, Case.RECOVERING, Case.BINDING), Case.SLACK),
    )
    without_b = jnp.where(c > 0, Case.INFEASIBLE, Case.UNCONSTRAINED)
    return jnp.where(p.s > 0, case, without_b).astype(jnp.int32)


def multipliers(
    p: Scalars, case: Int[Array, ""], derivative_floor: float
) -> tuple[Float[Array, ""], Float[Array, ""], Roots]:
    """λ and ν of `case`, as `classify` found it (of min bᵀx if it is INFEASIBLE), and A and B where the row binds."""
    # Numbers that only another case uses are replaced before they can overflow: an infinity in a branch that
    # is not selected becomes a NaN in reverse mode.
    binding, infeasible = binds(case), case == Case.INFEASIBLE
    q, s = _positive(p.q), _positive(p.s)
    r, c = jnp.where(binding, p.r, 0), jnp.where(binding, p.c, 0)
    roots = Roots.of(jnp.where(binding, p.A, q), 2 * p.delta - c**2 / s, q, p.delta, derivative_floor)
    lam_binding = jnp.where(p.q > 0, roots.ratio, 0)
    nu_binding = jnp.maximum(0, (lam_binding * c - r) / s)
    lam_slack = jnp.where(p.q > 0, jnp.sqrt(q / (2 * p.delta)), 0)
    lam_recovery = jnp.where(p.s > 0, jnp.sqrt(s / (2 * p.delta)), 0)
    lam = jnp.where(binding, lam_binding, jnp.where(infeasible, lam_recovery, lam_slack))
    return lam, jnp.where(binding, nu_binding, jnp.where(infeasible, 1, 0)), roots


def violation_slope(p: Scalars, case: Int[Array, ""], weight: Float[Array, ""]) -> Float[Array, ""]:
    """σ of an INFEASIBLE problem, 0 where b = 0."""
    c = jnp.where(case == Case.INFEASIBLE, jnp.minimum(p.c, jnp.finfo(p.c.dtype).max), 0)
    s = _positive(p.s)
    return jnp.where(p.s > 0, weight * jnp.maximum(c - jnp.sqrt(2 * p.delta * s), 0) / s, 0)


def _primal(
    y_g: Float[Array, " n"], y_b: Float[Array, " n"], p: Scalars, roots: Roots, case: Int[Array, ""]
) -> Float[Array, " n"]:
    """x from y_g = H⁻¹g and y_b = H⁻¹b; each branch is finite also where another is selected."""
    binding = binds(case)
    q, s = _positive(p.q), _positive(p.s)
    y_g, y_b = jnp.where(p.q > 0, y_g, 0), jnp.where(p.s > 0, y_b, 0)
    r, c = jnp.where(binding, p.r, 0), jnp.where(binding, p.c, 0)

    x_binding = -roots.scaled(y_g - (r / s) * y_b) - (c / s) * y_b
    x_slack = -jnp.sqrt(2 * p.delta / q) * y_g
    x_recovery = -jnp.sqrt(2 * p.delta / s) * y_b
    return jnp.where(binding, x_binding, jnp.where(case == Case.INFEASIBLE, x_recovery, x_slack))


def _scalars(
    rhs: Float[Array, "2 n"],
    y: Float[Array, "2 n"],
    hy: Float[Array, "2 n"],
    c: Float[Array, ""],
    delta: Float[Array, ""],
) -> Scalars:
    """q, r, s, A from rhs = (g, b), y = H⁻¹(g, b) and Hy.

    r = bᵀy_g and not gᵀy_b: then c + bᵀx = 0 also for a y_g that is only near H⁻¹g.
    """
    (g, b), (y_g, y_b), (hy_g, hy_b) = rhs, y, hy
    q, r, s = dot(g, y_g), dot(b, y_g), dot(b, y_b)
    ratio = r / _positive(s)
    d, hd = y_g - ratio * y_b, hy_g - ratio * hy_b
    return Scalars(q, r, s, c, delta, cancelled(q - ratio * r, d, hd))


def _positive(x: Float[Array, ""]) -> Float[Array, ""]:
    """x where x > 0, else 1: a denominator for branches that are not selected."""
    return jnp.where(x > 0, x, 1)
