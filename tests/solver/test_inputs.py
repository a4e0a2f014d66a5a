"""Lists, NumPy arrays and matrices are taken; everything else is refused in one line that names the argument."""

import equinox as eqx
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest

from metacpo.solver import Case, Problem
from metacpo.solver import solve as eager_solve
from metacpo.solver.arguments import operator

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


def test_a_matrix_is_a_preconditioner():
    g, b, c = map(jnp.array, (G, B, C))
    found = solve(Problem(g, b, c, jnp.array(H), DELTA), preconditioner=jnp.linalg.inv(jnp.array(H)))
    np.testing.assert_allclose(found.step, reference().step, rtol=1e-5)
    assert np.all(found.stats.iterations <= 2)


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


def test_every_argument_is_named():
    with pytest.raises(ValueError, match=r"^preconditioner must be a Lineax operator, a matrix or None, got str"):
        operator("preconditioner")("jacobi")
