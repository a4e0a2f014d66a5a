"""What keeps a network of the user's from being a policy: found before any training is compiled, one line each."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from metacpo.policies.base import Policy

LONGEST = 300  # characters of what the network's own code says
CLOSE = 1e-3  # of outputs that are to be the same: a compiler may round otherwise


class NetworkError(ValueError):
    """A network that cannot be a policy; the message is one line."""


def made(network: Any, observation_size: int, action_size: int, key: Key[Array, ""]) -> Any:
    """The module that a key begins with. What is called is a class of modules and nothing else."""
    if not _is_class_of_modules(network):
        kind = network.__name__ if isinstance(network, type) else type(network).__name__
        raise NetworkError(f"is no class of Equinox modules but {kind}; allowed: a subclass of equinox.Module")
    words = f"cannot be made from ({observation_size}, {action_size}, key=key)"
    return _tried(words, lambda: network(observation_size, action_size, key=key))


def check_parameters(one: Any, again: Any, other: Any) -> None:
    """Raises NetworkError for what the parameters are. One and again are made from one key, other from another one."""
    arrays = _arrays(one)
    if sum(x.size for x in arrays.values()) == 0:
        raise NetworkError("has no parameters; allowed: a module with at least one JAX array")
    for name, x in arrays.items():
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise NetworkError(f"{name}: is of {x.dtype}; allowed: floats (a constant is a NumPy array)")
        if not np.all(np.isfinite(x)):
            raise NetworkError(f"{name}: is not finite at the start")
    if _shapes(other) != _shapes(one):
        changed = sorted({name for name, _ in _shapes(one) ^ _shapes(other)})
        raise NetworkError(f"changes its structure with the key: {', '.join(changed)}")
    for name, x in _arrays(again).items():
        if not np.array_equal(x, arrays[name]):
            raise NetworkError(f"{name}: differs between two modules of one key; allowed: what follows from the key")


def is_parameter(x: Any) -> bool:
    """Whether a leaf of a module is learned: JAX's arrays are, NumPy's are constants. (Equinox counts both.)"""
    return isinstance(x, jax.Array)


def returns_mean_alone(module: Any, observation_size: int, action_size: int) -> bool:
    """Whether a module gives no log σ beside its mean. Raises NetworkError where it gives anything else."""
    z = jax.ShapeDtypeStruct((observation_size,), jnp.result_type(float))
    out = _tried("cannot be called on an observation", lambda: jax.eval_shape(lambda z: module(z), z))
    alone, both = (jax.tree.structure(form) for form in (0, (0, 0)))
    fits = all((x.shape, x.dtype) == ((action_size,), z.dtype) for x in jax.tree.leaves(out))
    if fits and jax.tree.structure(out) in (alone, both):
        return jax.tree.structure(out) == alone
    given = ", ".join(f"{x.dtype.name} {list(x.shape)}" for x in jax.tree.leaves(out)) or "nothing"
    wanted = f"{z.dtype.name} [{action_size}], the action's mean, or a tuple of two, the mean and log σ"
    raise NetworkError(f"returns {given} for an observation [{observation_size}]; allowed: {wanted}")


def check_start(policy: Policy, phi: Float[Array, " n"]) -> None:
    """Raises NetworkError where the first policy, or its derivative, is not finite or cannot be computed."""
    z = _observations(policy)

    def product(phi: Float[Array, " n"]) -> Float[Array, ""]:
        return phi @ policy.fisher(phi, z, jnp.ones(len(z), z.dtype), 0.0).mv(phi)

    def numbers(phi: Float[Array, " n"]):
        pi: Any = policy(phi, z)
        return pi, jax.grad(product)(phi)

    pi, gradient = _tried("cannot be differentiated as a Fisher product is", lambda: jax.jit(numbers)(phi))
    if not all(np.all(np.isfinite(x)) for x in jax.tree.leaves(pi)):
        raise NetworkError("returns numbers that are not finite at the start")
    if not np.all(np.isfinite(gradient)):
        raise NetworkError("has derivatives that are not finite at the start")


def check_constants(policy: Policy, phi: Float[Array, " n"], direct: Callable[[Array], tuple[Array, Array]]) -> None:
    """Raises NetworkError where a module made from another key is not that of its parameters φ.

    `direct` gives the mean and log σ of that module itself.
    """
    z = _observations(policy)
    pi: Any = policy(phi, z)
    for ours, theirs in zip((pi.mean, pi.log_std), direct(z), strict=True):
        if not np.allclose(ours, theirs, rtol=CLOSE, atol=CLOSE):
            raise NetworkError("has constants that change with the key; allowed: all that is random is a JAX array")


def _observations(policy: Policy) -> Float[Array, "4 O"]:
    """Normalised observations: zeros, as before any data, and three usual ones."""
    usual = jax.random.normal(jax.random.key(2), (3, policy.observation_size))
    return jnp.concatenate([jnp.zeros((1, policy.observation_size)), usual])


def _is_class_of_modules(network: object) -> bool:
    return isinstance(network, type) and issubclass(network, eqx.Module)


def _arrays(module: Any) -> dict[str, Array]:
    """The parameters by name."""
    leaves = jax.tree_util.tree_leaves_with_path(eqx.filter(module, is_parameter))
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


def _shapes(module: Any) -> set[tuple[str, tuple[int, ...]]]:
    return {(name, x.shape) for name, x in _arrays(module).items()}


def _tried(what: str, run: Callable[[], Any]) -> Any:
    """The result of the user's code, or a NetworkError of one line with what went wrong in it."""
    try:
        return run()
    except Exception as error:  # anything: it is someone else's code
        text = " ".join(str(error).split())[:LONGEST]
        raise NetworkError(f"{what} ({type(error).__name__}: {text})") from error
