"""Small synthetic data whose constrained steps fall into a chosen case of the solver."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from metacpo.algorithms.acceptance import StepStats
from metacpo.algorithms.inner_loop import InnerLoop
from metacpo.algorithms.inner_state import InnerState
from metacpo.algorithms.policy_update import PolicyUpdate, update
from metacpo.algorithms.signal import Signal
from metacpo.algorithms.trust_region import TrustRegionSettings
from metacpo.estimation import Batch, surrogates
from metacpo.estimation.batch import EpisodeStats
from metacpo.policies import GaussianPolicy
from metacpo.solver import Case

POLICY = GaussianPolicy(observation_size=3, action_size=1, hidden=(4,), initial_std=0.7)
STEPS = 40
# As exact as float64 allows: conjugate gradients run to the end, every state enters H.
# With little damping the full step is sometimes a little too far, and the line search has something to do.
EXACT = {
    metric: TrustRegionSettings(metric=metric, damping=1e-3, cg_iterations=80, cg_tolerance=1e-13, fisher_stride=1)
    for metric in ("kl", "euclidean")
}
CPO = {metric: PolicyUpdate(region=region) for metric, region in EXACT.items()}
# These programs run for milliseconds and take many seconds to optimise.
quick_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def initial(seed: int = 0):
    """θ away from the symmetric start."""
    key, noise = jax.random.split(jax.random.key(seed))
    return POLICY.init(key) + 0.3 * jax.random.normal(noise, (POLICY.size,))


def random_batch(phi, key, m: int = 1) -> Batch:
    """Data of π_φ with random states and advantages, uneven weights and c = 0."""
    keys = jax.random.split(key, 6)
    z = jax.random.normal(keys[0], (STEPS, POLICY.observation_size))
    pi = POLICY(phi, z)
    action = pi.mean + jnp.exp(pi.log_std) * jax.random.normal(keys[1], pi.mean.shape)
    weight, cost_weight = jax.random.uniform(keys[2], (2, STEPS), minval=0.5, maxval=1.5)
    return Batch(
        z=z,
        action=action,
        log_prob=pi.log_prob(action),
        reward_advantage=jax.random.normal(keys[3], (STEPS,)),
        cost_advantage=0.1 * jax.random.normal(keys[4], (STEPS, m)),
        weight=weight / jnp.sum(weight),
        cost_weight=cost_weight / jnp.sum(cost_weight),
        contrast=jnp.zeros((STEPS, 1)),  # nothing is known of a noise, so that all of it counts as signal
        c=jnp.zeros(m),
        margin=jnp.zeros(m),
        outer_margin=jnp.zeros(m),
    )


def quantities(phi, batch, settings: TrustRegionSettings):
    """(q, r, s) with H built densely from the divergence itself."""
    g, b = (jax.grad(lambda p, i=i: jnp.sum(surrogates(POLICY, p, batch)[i]))(phi) for i in (0, 1))
    H = jnp.eye(phi.size)
    if settings.metric == "kl":

        def mean_kl(p):
            each = POLICY(phi, batch.z).kl(POLICY(p, batch.z))
            return 0.5 * sum(jnp.average(each, weights=w) for w in (batch.weight, batch.cost_weight))

        H = jax.hessian(mean_kl)(phi) + settings.damping * H
    y = jnp.linalg.solve(H, jnp.stack([g, b], 1))
    return g @ y[:, 0], b @ y[:, 0], b @ y[:, 1]


def batch_in_case(phi, key, case, settings: TrustRegionSettings) -> Batch:
    """Data of π_φ under which its constrained step is in `case`, well inside it.

    With r < 0 (the sign of the cost advantages is free) lowering the loss raises the cost: the slack step ends
    at c + √(2δ/q)|r|, and no step changes the cost by more than √(2δs). What is good costs, or r could be next to 0,
    where no c lets the constraint bind well inside the region.
    """
    batch = random_batch(phi, key)
    costly = batch.cost_advantage + 0.1 * batch.reward_advantage[:, None]
    batch = eqx.tree_at(lambda b: b.cost_advantage, batch, costly)
    q, r, s = quantities(phi, batch, settings)
    reach, rise = jnp.sqrt(2 * settings.max_kl * s), jnp.sqrt(2 * settings.max_kl / q) * jnp.abs(r)
    c = jnp.select(
        [case == Case.INFEASIBLE, case == Case.RECOVERING, case == Case.BINDING],
        [1.4 * reach, 0.4 * reach, -0.5 * rise],
        -1.5 * reach,
    )
    cost_advantage = -jnp.sign(r) * batch.cost_advantage
    return eqx.tree_at(lambda b: (b.cost_advantage, b.c), batch, (cost_advantage, c[None]))


def no_stats(*shape: int) -> EpisodeStats:
    """Statistics that nothing here reads."""
    zero, one = jnp.zeros(shape), jnp.zeros((*shape, 1))
    return EpisodeStats(zero, one, one, zero, zero, zero, zero, zero, one, one)


def no_updates(*shape: int, m: int = 1) -> StepStats:
    """The stats of no inner step at all: leading axes (0, *shape)."""
    zero = jnp.zeros((0, *shape))
    one = jnp.zeros((0, *shape, m))
    return StepStats(*[zero] * 10, one, Signal(zero, one), zero, zero, one)


def inner_state(m: int = 1) -> InnerState:
    """Away from their defaults, so that a factor that is forgotten shows."""
    return InnerState(jnp.full(m, 0.7), jnp.full(m, 0.01), jnp.asarray(0.3))


class Walker:
    """Inner loops of a rule on such data, one compiled step for all of them.

    Data fall into their case for CPO's step with inner_state of factor 1; other rules have cases of their own.
    """

    def __init__(self, rule: PolicyUpdate, tasks: int = 2, start: InnerState | None = None):
        self.rule, self.tasks = rule, tasks
        self.start = InnerState.init(1) if start is None else start
        self.checked = start is None and rule in CPO.values()

        def advance(phi, inner_state, key, case):
            batch = batch_in_case(phi, key, case, rule.region)
            return batch, *update(POLICY, phi, inner_state, batch, rule)

        self._advance = quick_jit(jax.vmap(advance, (0, 0, 0, None)))

    def loop(self, theta, cases, length: int | None = None, seed: int = 0) -> InnerLoop:
        """K = len(cases) inner steps from θ, step k in `cases[k]`, and data of φ^K.

        `length` ≥ K repeats the last step with α = 0, which is no step: one program for several K.
        """
        phi, inner_state = jax.tree.map(lambda x: jnp.broadcast_to(x, (self.tasks, *x.shape)), (theta, self.start))
        steps, keys = [], jax.random.split(jax.random.key(seed), (len(cases) + 1, self.tasks))
        for key, case in zip(keys, cases, strict=False):
            batch, phi, inner_state, stats = self._advance(phi, inner_state, key, jnp.asarray(int(case)))
            if self.checked:
                np.testing.assert_array_equal(stats.case, int(case))
            assert np.all(stats.alpha > 0) and not np.any(stats.derivative_clipped)
            steps.append((batch, stats))
        last = self._advance(phi, inner_state, keys[-1], jnp.asarray(int(Case.SLACK)))[0]
        pause = eqx.tree_at(lambda step: step[1].alpha, steps[-1], jnp.zeros(self.tasks))
        steps += [pause] * ((length or len(cases)) - len(cases))
        batches, updates = jax.tree.map(lambda *x: jnp.stack(x), *steps)
        K, M = updates.alpha.shape
        return InnerLoop(batches, updates, no_stats(K + 1, M), phi, last)
