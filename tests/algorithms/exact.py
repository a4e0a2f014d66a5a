"""Exact data of small CMDPs: every expectation a sum, so that what a step promises is what the theory says.

A softmax table is the policy, and a batch lists all (state, action) pairs, weighted by the discounted occupancy
d_π(s)·π(a|s), with exact advantages. The library's own updates and meta-updates run on it as on any other data.

The chain: action a leads to state a with probability 1 − slip, else to the other one. State 1 pays 1 a step and costs
`cost`; state 0 does neither. Hence J_R ≤ h/cost under J_C ≤ h, and that is reached as long as the policy can be that
often in state 1.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from metacpo.estimation import Batch
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import GaussianPolicy

GAMMA = 0.9
SWEEPS = 400  # of v ← r + γPv: 0.9⁴⁰⁰ is below 1e-18


class Categorical(eqx.Module):
    """Distributions over actions, which are one-hot."""

    logits: Float[Array, "*batch A"]

    def log_prob(self, action: Float[Array, "*batch A"]) -> Float[Array, "*batch"]:
        return jnp.sum(action * jax.nn.log_softmax(self.logits), axis=-1)

    def kl(self, other: "Categorical") -> Float[Array, "*batch"]:
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


class Table(GaussianPolicy):
    """A softmax table under the interface of the library's policy; observations and actions are one-hot."""

    def __call__(self, phi, z):
        return Categorical(z @ phi.reshape(self.observation_size, self.action_size))

    def fisher(self, phi, z, weight, damping):
        """The Hessian of the mean divergence at φ, as `GaussianPolicy.fisher` defines it, by autodiff."""
        import lineax

        def divergence(p):
            return jnp.sum(weight * self(phi, z).kl(self(p, z))) / jnp.sum(weight)

        matrix = jax.hessian(divergence)(phi) + damping * jnp.eye(phi.size)
        return lineax.MatrixLinearOperator(jax.lax.stop_gradient(matrix), lineax.positive_semidefinite_tag)


TABLE = Table(2, 2, (), 1.0)


class Chain(NamedTuple):
    """One task: what state 1 costs, the probability to slip, the limit h on the discounted cost."""

    cost: Array
    slip: Array
    limit: Array


class Values(NamedTuple):
    """J_R, J_C; exact advantages [S, A] of reward and cost; d_π [S], sums to 1."""

    J_R: Array
    J_C: Array
    A_R: Array
    A_C: Array
    d: Array


def probabilities(phi) -> Array:
    return jax.nn.softmax(phi.reshape(2, 2))


def values(phi, chain: Chain) -> Values:
    """Of the table φ on a chain that starts in state 0."""
    pi = probabilities(phi)
    P = jnp.stack([jnp.array([[1.0, 0], [0, 1]])] * 2) * (1 - 2 * chain.slip) + chain.slip  # [s, a, s']
    step = jnp.einsum("sa,san->sn", pi, P)

    def evaluate(r):
        v = jax.lax.fori_loop(0, SWEEPS, lambda _, v: r + GAMMA * step @ v, jnp.zeros(2))
        return v[0], r[:, None] + GAMMA * P @ v - v[:, None]

    pays = jnp.array([0.0, 1.0])
    (J_R, A_R), (J_C, A_C) = evaluate(pays), evaluate(chain.cost * pays)
    start = jnp.array([1.0, 0.0])
    d = jax.lax.fori_loop(0, SWEEPS, lambda _, d: (1 - GAMMA) * start + GAMMA * d @ step, jnp.zeros(2))
    return Values(J_R, J_C, A_R, A_C, d)


def exact_batch(phi, chain: Chain) -> Batch:
    """All pairs (s, a): L_R(φ') = −Σ d_π(s) π'(a|s) A_R(s, a), c = (1 − γ)(J_C − h)."""
    v = values(phi, chain)
    weight = (v.d[:, None] * probabilities(phi)).ravel()
    eye = jnp.eye(2)
    return Batch(
        z=jnp.repeat(eye, 2, axis=0),
        action=jnp.tile(eye, (2, 1)),
        log_prob=jnp.log(probabilities(phi)).ravel(),
        reward_advantage=v.A_R.ravel(),
        cost_advantage=v.A_C.ravel()[:, None],
        weight=weight,
        cost_weight=weight,
        contrast=jnp.zeros_like(weight)[:, None],
        margin=jnp.zeros(1),
        outer_margin=jnp.zeros(1),
        c=(1 - GAMMA) * (v.J_C - chain.limit)[None],
    )


def exact_sampler():
    """A `Sampler` on chains whose data are exact: statistics hold J_R and J_C of every task."""

    def sample(chains: Chain, phi, _keys):
        v = jax.vmap(values)(phi, chains)
        M = phi.shape[0]
        stats = EpisodeStats(
            episode_return=v.J_R,
            episode_cost=v.J_C[:, None],
            discounted_cost=v.J_C[:, None],
            episodes_within=jnp.zeros(M),
            length=jnp.full(M, 1 / (1 - GAMMA)),
            discounted_length=jnp.full(M, 1 / (1 - GAMMA)),
            nonfinite=jnp.zeros(M),
            critic_nonfinite=jnp.zeros(M),
            obs_mean=jnp.zeros((M, 2)),
            obs_var=jnp.ones((M, 2)),
        )
        return jax.vmap(exact_batch)(phi, chains), stats

    return sample


def quick_jit(function):
    """These programs run for milliseconds and take seconds to optimise."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def chains(*tasks: tuple[float, float, float]) -> Chain:
    """Several chains (cost, slip, limit), stacked."""
    return Chain(*(jnp.array(column) for column in zip(*tasks, strict=True)))


def one(chain: Chain, i: int = 0) -> Chain:
    return Chain(*(column[i] for column in chain))
