"""The inner loop: K updates of every task from θ, made once with rollouts, and repeated as a function of θ.

    for every task i in parallel: φ_i⁰ = θ
      for k = 0..K−1:  D_i^k ~ rollouts of φ_i^k;   φ_i^{k+1} = φ_i^k + α_i^k · x(φ_i^k; D_i^k, h_i)
      D_i^K ~ rollouts of φ_i^K

`run_inner_loop` makes the updates with rollouts and line searches and keeps the data. `differentiable_inner_loop`
repeats them with that data, the α and what of the data is signal as constants.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from metacpo.algorithms.acceptance import StepStats
from metacpo.algorithms.finite import all_finite, task_weights
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.policy_update import PolicyUpdate, compute_step, update
from metacpo.algorithms.settings import MetaSettings
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.trust_region import LinearData, linearise
from metacpo.estimation import Batch
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import Policy
from metacpo.runtime.devices import spread

# (tasks, φ [M, n], a key for each) ↦ the data of φ_i on task i; a task is whatever the sampler takes for one.
Sampler = Callable[[PyTree, Float[Array, "M n"], Key[Array, " M"]], tuple[Batch, EpisodeStats]]
Linearisation = Callable[[Policy, Array, Batch], LinearData]  # of a batch's surrogates at φ

# Whose cost the outer step keeps under the limit: that of the adapted policy φ^K, of every φ^k (k = 0..K, stacked), of
# the meta-policy θ ("start"), or nobody's.
ConstraintOn = Literal["adapted", "every", "start", "none"]


class InnerLoop(eqx.Module):
    """One descent of all M tasks: the data of the K steps, what became of these, and where it ended.

    batches[k] and updates[k] (with α^k and the signal) belong to φ^k → φ^{k+1}, k < K; stats[k] to φ^k, k ≤ K; phi is
    φ^K and last its data D^K. path, where `run_inner_loop` made the loop: φ^0..φ^K.
    """

    batches: Batch
    updates: StepStats
    stats: EpisodeStats
    phi: Float[Array, "M n"]
    last: Batch
    path: Float[Array, "steps M n"] | None = None

    @property
    def first(self) -> Batch:
        """D^0 of all tasks: the data of θ itself (D^K when K = 0)."""
        if self.updates.alpha.shape[0] == 0:
            return self.last
        return jax.tree.map(lambda x: x[0], self.batches)

    @property
    def task_weight(self) -> Float[Array, " M"]:
        """Every task's weight in means over tasks (see `task_weights`): 0 for one with a number that is not finite, or
        with a batch without a single valid step, which looks as safe as can be."""
        data = (self.batches, self.updates.alpha, self.updates.delta, self.updates.signal)
        valid = jax.vmap(lambda steps, rest: all_finite((steps, rest)), (1, 0))(data, (self.last, self.phi))
        seen = jnp.all(jnp.sum(self.batches.weight, axis=-1) > 0, axis=0) & (jnp.sum(self.last.weight, axis=-1) > 0)
        return task_weights(valid & seen, self.phi.dtype)


def run_inner_loop(
    policy: Policy,
    theta: Float[Array, " n"],
    inner_state: InnerState,
    sample: Sampler,
    tasks: PyTree,
    key: Key[Array, ""],
    settings: MetaSettings,
    inner: PolicyUpdate,
) -> InnerLoop:
    """K inner updates of every task from θ, with fresh data for each, which `sample` rolls out. Tasks: axis 0."""

    def descend(theta: Float[Array, " n"], inner_state: InnerState, tasks: PyTree, keys: Key[Array, "steps M"]):
        start = jax.tree.map(lambda x: jnp.broadcast_to(x, (keys.shape[1], *x.shape)), (theta, inner_state))

        def inner_step(carry: tuple[Float[Array, "M n"], InnerState], keys: Key[Array, " M"]):
            phi, inner_state = carry
            batch, stats = sample(tasks, phi, keys)
            new, after, updates = jax.vmap(lambda p, y, D: update(policy, p, y, D, inner))(phi, inner_state, batch)
            return (new, after), (phi, batch, stats, updates)

        # K + 1 rounds of one loop body, so that the rollout is compiled once; the last round's update is dropped.
        return jax.lax.scan(inner_step, start, keys)[1]

    K, M = settings.steps, settings.tasks
    keys = jax.vmap(lambda k: jax.random.split(k, M))(jax.random.split(key, K + 1))
    phis, batches, stats, updates = spread(descend, in_axes=(None, None, 0, 1), out_axes=1)(
        theta, inner_state, tasks, keys
    )
    first, updates = (jax.tree.map(lambda x: x[:K], tree) for tree in (batches, updates))
    return InnerLoop(first, updates, stats, phis[K], jax.tree.map(lambda x: x[K], batches), phis)


def differentiable_inner_loop(
    policy: Policy,
    theta: Float[Array, " n"],
    inner_state: InnerState,
    batches: Batch,
    updates: StepStats,
    inner: PolicyUpdate,
    linear: Linearisation = linearise,
    constant_steps: bool = False,
) -> tuple[Float[Array, " n"], Float[Array, "K n"]]:
    """φ^K of one task, and φ⁰..φ^{K−1}, as functions of (θ, inner_state) on frozen data.

    φ^{k+1} = φ^k + α^k x(φ^k; D^k) with α^k constant, and what of D^k is signal; δ^k is a function of φ^k and D^k.
    `linear` says how the data's dependence on φ^k counts; `constant_steps` takes every x for a constant, ∂φ^K/∂θ = I.
    """

    if batches.weight.shape[0] == 0:
        return theta, theta[None][:0]
    method = _Replay(policy, inner, linear, constant_steps)
    return _replayed(method, theta, inner_state, (batches, updates.alpha, updates.signal))


# Parameters beyond which nothing but φ^k and its data is kept of a step for the way back, where the step is linearised
# again: the activations of K steps would be most of the memory.
LARGE = 2**16

Carry = tuple[Float[Array, " n"], InnerState]
StepData = tuple[Batch, Float[Array, "*K"], Signal]


@dataclass(frozen=True)
class _Replay:
    """One step of `differentiable_inner_loop`, (φ^k, inner state) ↦ (φ^{k+1}, inner state)."""

    policy: Policy
    inner: PolicyUpdate
    linear: Linearisation
    constant_steps: bool

    def __call__(self, carry: Carry, data: StepData) -> Carry:
        (phi, inner_state), (batch, alpha, signal) = carry, data
        proposed, after = compute_step(self.policy, phi, inner_state, batch, signal, self.inner, self.linear)
        step = proposed.proposal.step
        return phi + alpha * (jax.lax.stop_gradient(step) if self.constant_steps else step), after


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _replayed(
    method: _Replay, theta: Float[Array, " n"], inner_state: InnerState, data: StepData
) -> tuple[Float[Array, " n"], Float[Array, "K n"]]:
    """φ^K, and φ⁰..φ^{K−1}. The derivative is autodiff's own, but it leaves out the steps that a cotangent does not
    reach: what is held of φ^k goes back through k steps, not through K."""
    (phi, _), path = jax.lax.scan(lambda carry, D: (method(carry, D), carry[0]), (theta, inner_state), data)
    return phi, path


def _replayed_fwd(method: _Replay, theta: Float[Array, " n"], inner_state: InnerState, data: StepData):
    def step(carry: Carry, data: StepData):
        if theta.size > LARGE:
            return method(carry, data), (carry, None)
        after, pullback = jax.vjp(lambda c: method(c, data), carry)
        return after, (carry, pullback)

    (phi, end), (starts, pullbacks) = jax.lax.scan(step, (theta, inner_state), data)
    saved = (starts, data) if pullbacks is None else pullbacks
    return (phi, starts[0]), (saved, jax.tree.map(jnp.zeros_like, end))


def _replayed_bwd(method: _Replay, saved, cotangents):
    """v ← v^k + (∂φ^{k+1}/∂φ^k)ᵀ v for k = K − 1..0, from the last k on at which there is anything."""
    (of_steps, nothing), (v_end, v_path) = saved, cotangents
    K = v_path.shape[0]
    v = jnp.concatenate([v_path, v_end[None]])
    last = jnp.max(jnp.where(jnp.any(v != 0, axis=1), jnp.arange(K + 1), 0))

    def back(state):
        k, v_phi, v_state = state
        of_step = jax.tree.map(lambda x: x[k - 1], of_steps)
        if v_path.shape[1] > LARGE:
            start, data = of_step
            of_step = jax.vjp(lambda c: method(c, data), start)[1]
        ((v_phi, v_state),) = of_step((v_phi, v_state))
        return k - 1, v[k - 1] + v_phi, v_state

    _, v_theta, v_state = jax.lax.while_loop(lambda state: state[0] > 0, back, (last, v[last], nothing))
    return v_theta, v_state, None


_replayed.defvjp(_replayed_fwd, _replayed_bwd)
