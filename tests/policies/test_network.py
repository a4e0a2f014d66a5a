"""Equinox modules as policies: against the module itself, dense autodiff, and by what is refused."""

import importlib.util
from functools import partial
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from metacpo.policies import NetworkError, network_policy

SCRIPT = Path(__file__).parents[2] / "examples" / "custom_network" / "networks.py"
SPEC = importlib.util.spec_from_file_location("networks", SCRIPT)
assert SPEC is not None and SPEC.loader is not None
networks = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(networks)


class Normed(eqx.Module):
    """A layer norm and a linear layer: the mean alone."""

    norm: eqx.nn.LayerNorm
    action: eqx.nn.Linear
    scale: np.ndarray  # a constant

    def __init__(self, observation_size, action_size, *, key):
        self.norm = eqx.nn.LayerNorm(observation_size)
        self.action = eqx.nn.Linear(observation_size, action_size, key=key)
        self.scale = np.full(action_size, 0.5, np.float32)

    def __call__(self, z):
        return jnp.tanh(self.action(self.norm(z))) * jnp.asarray(self.scale, z.dtype)


class Spread(eqx.Module):
    """A mean and a log standard deviation of every state."""

    both: eqx.nn.MLP
    actions: int

    def __init__(self, observation_size, action_size, *, key):
        self.both = eqx.nn.MLP(observation_size, 2 * action_size, 3, 1, activation=jnp.tanh, key=key)
        self.actions = action_size

    def __call__(self, z):
        out = self.both(z)
        return out[: self.actions], out[self.actions :]


class Memory(networks.Recurrent):
    """The example's GRU over two steps of history: O + 2(O + 2 + 1)."""

    history = 2


KINDS = {Normed: 3, Spread: 3, Memory: 2 + 2 * 5}  # and the size of the observation


@pytest.mark.parametrize(
    "network", [pytest.param(x, marks=pytest.mark.slow) if x.__name__ == "Memory" else x for x in KINDS]
)
def test_the_policy_is_the_module(network):
    size, A, key = KINDS[network], 2, jax.random.key(5)
    policy = network_policy(network, size, A, 0.6)
    phi = policy.init(key, jnp.float32)
    z = np.random.default_rng(0).normal(size=(2, 3, size)).astype(np.float32)
    pi, module = policy(phi, jnp.asarray(z)), network(size, A, key=key)
    for place in np.ndindex(2, 3):
        out = module(jnp.asarray(z[place]))
        mean, log_std = (out, np.full(A, np.log(0.6))) if network is Normed else out
        np.testing.assert_allclose(pi.mean[place], mean, rtol=1e-5)
        np.testing.assert_allclose(pi.log_std[place], log_std, rtol=1e-5)
    count = sum(x.size for x in jax.tree.leaves(module) if isinstance(x, jax.Array))
    assert phi.shape == (policy.size,) == (count + (A if network is Normed else 0),)
    assert phi.dtype == jnp.float32


@pytest.mark.parametrize(
    "network", [pytest.param(x, marks=pytest.mark.slow) if x.__name__ == "Memory" else x for x in KINDS]
)
def test_fisher_is_the_hessian_of_the_mean_kl(x64, network):
    size = KINDS[network]
    policy = network_policy(network, size, 2, 0.6)
    phi = policy.init(jax.random.key(1)) + 0.3 * jax.random.normal(jax.random.key(2), (policy.size,))
    z = jax.random.normal(jax.random.key(3), (7, size))
    weight = jax.random.uniform(jax.random.key(4), (7,), minval=0.5, maxval=3.0).at[5].set(0.0)

    def mean_kl(other):
        return jnp.average(policy(phi, z).kl(policy(other, z)), weights=weight)

    @jax.jit
    def both(phi):
        operator = policy.fisher(phi, z, weight, 0.07)
        return jax.vmap(operator.mv)(jnp.eye(policy.size)), jax.hessian(mean_kl)(phi)

    matrix, hessian = both(phi)
    np.testing.assert_allclose(matrix, hessian + 0.07 * jnp.eye(policy.size), atol=1e-11)
    assert np.max(np.abs(hessian)) > 0.1


def test_policies_of_one_network_are_one_program():
    one, again, other = (network_policy(Normed, 3, 2, std) for std in (0.6, 0.6, 0.7))
    assert one == again and hash(one) == hash(again) and one != other


def test_a_constant_deviation_is_no_parameter_and_only_of_a_network_without_its_own():
    learned, constant = (network_policy(Normed, 3, 2, 0.6, learn_std) for learn_std in (True, False))
    assert constant.size == learned.size - 2 and constant != learned
    phi, z = learned.init(jax.random.key(1)), jnp.ones(3)
    np.testing.assert_array_equal(constant(phi[:-2] + 1, z).mean, learned(phi.at[:-2].add(1), z).mean)
    np.testing.assert_allclose(constant(phi[:-2] + 1, z).std, [0.6, 0.6], rtol=1e-6)
    with pytest.raises(NetworkError, match=r"returns log σ itself beside learn_std = false; allowed: the mean alone"):
        network_policy(Spread, 3, 2, 0.6, learn_std=False)


def linear(call=None, init=None):
    """A class of modules with one linear layer; `call` and `init` replace what it computes and how it begins."""

    class Linear(eqx.Module):
        layer: eqx.nn.Linear
        more: object

        def __init__(self, observation_size, action_size, *, key):
            self.layer = eqx.nn.Linear(observation_size, action_size, key=key)
            self.more = None if init is None else init(key)

        def __call__(self, z):
            return self.layer(z) if call is None else call(self, z)

    return Linear


def number(key):
    """0 or 1, of `jax.random.key(0)` and `key(1)`."""
    return int(jax.random.key_data(key)[1])


class Empty(eqx.Module):
    def __init__(self, observation_size, action_size, *, key):
        pass

    def __call__(self, z):
        return z[:2]


@partial(jax.custom_vjp)
def backward_only(x):
    return x


backward_only.defvjp(lambda x: (x, None), lambda _, g: (g,))

REFUSED = {
    "is no class of Equinox modules but function": lambda observation_size, action_size, key: None,
    "is no class of Equinox modules but dict": dict,
    "has no parameters": Empty,
    "more: is of int32; allowed: floats": linear(init=lambda key: jnp.arange(3)),
    "more: is of complex64; allowed: floats": linear(init=lambda key: jnp.zeros(2, jnp.complex64)),
    "more: is not finite at the start": linear(init=lambda key: jnp.full(2, jnp.nan)),
    "changes its structure with the key: more": linear(
        init=lambda key: jnp.zeros(2 + int(jax.random.key_data(key)[1]))
    ),
    "more: differs between two modules of one key": linear(
        init=lambda key: jnp.asarray(np.random.default_rng().normal(size=2), jnp.float32)
    ),
    "has constants that change with the key": linear(
        call=lambda self, z: self.layer(z) + self.more, init=lambda key: float(number(key))
    ),
    "returns float32 [3] for an observation [3]; allowed: float32 [2]": linear(call=lambda self, z: z),
    "returns float32 [2], float32 [1] for": linear(call=lambda self, z: (self.layer(z), z[:1])),
    "returns float32 [2], float32 [2], float32 [2]": linear(call=lambda self, z: (self.layer(z),) * 3),
    "returns float16 [2] for": linear(call=lambda self, z: self.layer(z).astype(jnp.float16)),
    "cannot be called on an observation (ValueError: too late)": linear(
        call=lambda self, z: (_ for _ in ()).throw(ValueError("too\nlate"))
    ),
    "cannot be made from (3, 2, key=key) (KeyError: 'gone')": linear(init=lambda key: {}["gone"]),
    "returns numbers that are not finite at the start": linear(call=lambda self, z: jnp.log(self.layer(z) - 1e3)),
    "has derivatives that are not finite at the start": linear(call=lambda self, z: jnp.sqrt(self.layer(z) * 0.0)),
    "cannot be differentiated as a Fisher product is": linear(call=lambda self, z: backward_only(self.layer(z))),
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_does_not_fit_is_one_line(says):
    with pytest.raises(NetworkError) as error:
        network_policy(REFUSED[says], 3, 2, 0.6)
    assert says in str(error.value) and "\n" not in str(error.value)
