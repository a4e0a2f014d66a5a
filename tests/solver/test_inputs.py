"""Lists, NumPy arrays and matrices are taken; everything else is refused in one line that names the argument."""

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from metacpo.solver import Case, Problem
from metacpo.solver import solve as eager_solve

from .problems import dense

solve = eqx.filter_jit(eager_solve, compiler_options={"xla_backend_optimization_level": 0})
G, B, C, DELTA = [1.0, 0.5, -0.2], [[0.3, 1.0, 0.0]], [-0.1], 0.1
H = [[2.0, 0.3, 0.0], [0.3, 1.0, 0.0], [0.0, 0.0, 0.5]]


def reference():
    return solve(Problem(jnp.array(G), jnp.array(B), jnp.array(C), dense(jnp.array(H)), jnp.array(DELTA)))


def test_lists_are_arrays_and_a_matrix_is_a_metric():
    wanted = reference()
    assert wanted.case in (Case.BINDING, Case.SLACK)
    for metric in (H, np.array(H, np.float32), jnp.array(H)):
        found = solve(Problem(G, B, C, metric, DELTA, [1.0]))  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(found.step, wanted.step, rtol=1e-6)
    assert solve(Problem(G, np.zeros((0, 3)), [], H, 1)).case == Case.UNCONSTRAINED  # pyright: ignore


@pytest.mark.parametrize("kind", [jnp.float32, jnp.float64])
def test_mixed_types_are_solved_in_that_of_g(x64, kind):
    wanted = reference().step
    other = jnp.float64 if kind == jnp.float32 else jnp.float32
    for metric in (jnp.array(H, other), dense(jnp.array(H, other)), dense(jnp.array(H, kind))):
        found = solve(Problem(jnp.array(G, kind), jnp.array(B, other), C, metric, np.float64(DELTA), [1.0]))  # pyright: ignore
        assert found.step.dtype == found.lam.dtype == found.nu.dtype == found.residual.dtype == kind
        np.testing.assert_allclose(found.step, wanted, rtol=1e-5)


def test_a_function_is_applied_in_its_own_type(x64):
    structure, matrix = jnp.zeros(3, jnp.float32), jnp.array(H, jnp.float32)
    metric = lx.FunctionLinearOperator(lambda v: matrix @ v, structure, lx.positive_semidefinite_tag)
    found = solve(Problem(jnp.array(G), jnp.array(B), jnp.array(C), metric, DELTA))
    assert found.step.dtype == jnp.float64
    np.testing.assert_allclose(found.step, reference().step, rtol=1e-4)


BAD = {
    "g must be an array of floating numbers, got int": dict(g=np.array([1, 0, 2])),
    "g must be an array of floating numbers, got complex64": dict(g=np.array(G, np.complex64)),
    "g must be an array of floating numbers, got str": dict(g="north"),
    "g must be an array of floating numbers, got NoneType": dict(g=None),
    "b must be an array of floating numbers, got bool": dict(b=np.ones((1, 3), bool)),
    "b must be an array of floating numbers, got list of uneven shape": dict(b=[[1.0, 2.0], [1.0]]),
    "c must be an array of floating numbers, got int": dict(c=[1]),
    "delta must be an array of floating numbers, got complex": dict(delta=1j),
    "delta must be an array of floating numbers, got bool": dict(delta=True),
    "weight must be an array of floating numbers, got int": dict(weight=[1]),
    "metric must be a Lineax operator, a matrix or None, got function": dict(metric=lambda v: v),
    "metric must be a Lineax operator, a matrix or None, got int": dict(metric=np.eye(3, dtype=int)),
    r"metric must be a matrix of shape \[n, n\], got shape \(3,\)": dict(metric=np.ones(3)),
    r"metric must map \[3\] to \[3\]": dict(metric=np.eye(2)),
    r"c must have shape \(1,\) .*, got \(2,\)": dict(c=[-0.1, -0.1]),
}


@pytest.mark.parametrize("words", BAD)
def test_others_are_refused_in_one_line(words):
    fine = dict(g=G, b=B, c=C, metric=H, delta=DELTA)
    with pytest.raises(ValueError, match=f"^{words}") as error:
        solve(Problem(**(fine | BAD[words])))  # pyright: ignore[reportArgumentType]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (lambda p: p.b, jnp.ones((1, 2)), r"b must have shape .* \(1, 2\)"),
        (lambda p: p.c, jnp.ones(2), r"c must have shape .* \(2,\)"),
        (lambda p: p.g, jnp.ones((3, 1)), r"g must have shape .* \(3, 1\)"),
        (lambda p: p.delta, jnp.ones(2), r"delta must be a scalar"),
        (lambda p: p.metric, dense(jnp.eye(2)), r"metric must map \[3\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(where, value, message):
    fine = Problem(jnp.ones(3), jnp.ones((1, 3)), jnp.ones(1), dense(jnp.eye(3)), jnp.array(0.1))
    with pytest.raises(ValueError, match=message):
        eager_solve(eqx.tree_at(where, fine, value))


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (lambda p: p.g, jnp.array([1.0, np.nan, 0.0]), r"g of shape \(3,\) must be finite"),
        (lambda p: p.b, jnp.full((2, 3), np.inf), r"b of shape \(2, 3\) must be finite"),
        (lambda p: p.c, jnp.array([0.0, -np.inf]), r"c of shape \(2,\) must be finite"),
        (lambda p: p.delta, jnp.array(0.0), r"delta of shape \(\) must be positive, got 0"),
        (lambda p: p.delta, -1.0, r"delta of shape \(\) must be positive, got -1"),
        (lambda p: p.weight, jnp.array([1.0, 0.0]), r"weight of shape \(2,\) must be positive"),
        (lambda p: p.weight, jnp.ones(3), r"weight must have shape \(2,\)"),
        (lambda p: p.c, jnp.ones(3), r"c must have shape \(2,\)"),
    ],
)
def test_bad_numbers_outside_jit_are_refused(where, value, message):
    fine = Problem(jnp.ones(3), jnp.ones((2, 3)), jnp.ones(2), None, jnp.array(0.1), jnp.ones(2))
    with pytest.raises(ValueError, match=message):
        eager_solve(eqx.tree_at(where, fine, value))
