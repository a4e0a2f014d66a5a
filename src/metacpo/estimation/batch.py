"""Everything that an update needs of a set of episodes: a fixed batch, and what its numbers mean."""

from dataclasses import dataclass
from typing import Annotated

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from scipy.stats import t as student_t

from metacpo.estimation.critics import CriticName, fit_values
from metacpo.estimation.halves import contrasts
from metacpo.estimation.measures import CostMeasure, limited
from metacpo.estimation.returns import discounts, gae
from metacpo.policies import Normaliser
from metacpo.rollout import Trajectory
from metacpo.runtime.numeric import Range

Values = tuple[Float[Array, "*M T B m"], Float[Array, "*M B m"]]  # V(s_t), and V at the episodes' ends


@dataclass(frozen=True)
class EstimationSettings:
    """How returns, costs and advantages are estimated.

    gamma, lam, critic serve the reward; cost_gamma, cost_lam, cost_critic every cost.
    cost_measure says which cost the limit limits: "episode" (Σ c_t) or "discounted" (Σ γᵗ c_t).
    An update aims at the limit with probability `confidence`, given the batch: c gets as many standard errors of the
    batch's mean cost as Student's t says (0 at 0.5). One episode has no spread, and no margin. `outer_confidence` is
    that of the outer step, for every constraint that it holds; None: the same.
    """

    gamma: Annotated[float, Range("(0, 1]")] = 0.99
    lam: Annotated[float, Range("[0, 1]")] = 0.95
    cost_gamma: Annotated[float, Range("(0, 1]")] = 0.99
    cost_lam: Annotated[float, Range("[0, 1]")] = 0.95
    critic: CriticName = "ridge"
    cost_critic: CriticName = "ridge"
    cost_measure: CostMeasure = "episode"
    confidence: Annotated[float, Range("(0, 1)")] = 0.95
    outer_confidence: Annotated[float | None, Range("(0, 1)")] = None


class Batch(eqx.Module):
    """N steps on one task with all that is constant under an update (the data D^k). Leading axis M for tasks.

    c is the constraint's value at the policy that made the data, in per-step units, margin what an update adds to it to
    be as confident as it should be, outer_margin what an outer update adds. weight and cost_weight sum to 1 over the
    steps; cost_weight carries γᵗ under the discounted measure. contrast opposes halves of the episodes to each other,
    in C ways (algorithms/signal.py).
    """

    z: Float[Array, "*M N O"]
    action: Float[Array, "*M N A"]
    log_prob: Float[Array, "*M N"]
    reward_advantage: Float[Array, "*M N"]
    cost_advantage: Float[Array, "*M N m"]
    weight: Float[Array, "*M N"]
    cost_weight: Float[Array, "*M N"]
    contrast: Float[Array, "*M N C"]
    c: Float[Array, "*M m"]
    margin: Float[Array, "*M m"]
    outer_margin: Float[Array, "*M m"]

    @property
    def kl_weight(self) -> Float[Array, "*M N"]:
        """How much the divergence at each state counts: the mean of what it counts in the two surrogates.

        Weighted by the steps alone, the divergence of an episode's first states hardly counts, and a discounted
        surrogate, which looks at little else, is followed far beyond the region where it holds.
        """
        return 0.5 * (self.weight + self.cost_weight)


class EpisodeStats(eqx.Module):
    """Means over the episodes of a trajectory; undiscounted unless the name says otherwise."""

    episode_return: Float[Array, "*M"]
    episode_cost: Float[Array, "*M m"]
    discounted_cost: Float[Array, "*M m"]
    episodes_within: Float[Array, "*M"]  # share of the episodes that keep every limit, over at least one valid step
    length: Float[Array, "*M"]
    discounted_length: Float[Array, "*M"]  # Σ γᵗ over an episode's steps
    nonfinite: Float[Array, "*M"]  # worlds
    critic_nonfinite: Float[Array, "*M"]  # critics without a finite value, replaced by V = 0
    obs_mean: Float[Array, "*M O"]
    obs_var: Float[Array, "*M O"]


def episode_stats(trajectory: Trajectory, cost_limit: Float[Array, " m"], settings: EstimationSettings) -> EpisodeStats:
    """Return and cost per episode, averaged over the B episodes of one task with limit h."""
    weights = discounts(settings.gamma, trajectory.reward.shape[0])[:, None, None]
    episode_cost, discounted_cost = jnp.sum(trajectory.cost, axis=0), jnp.sum(weights * trajectory.cost, axis=0)
    counted = limited(settings.cost_measure, episode_cost, discounted_cost)
    within = jnp.all(counted <= cost_limit, axis=-1) & jnp.any(trajectory.valid > 0, axis=0)
    seen = _normalised(trajectory.valid)[..., None]
    obs_mean = jnp.sum(seen * trajectory.obs, axis=(0, 1))
    return EpisodeStats(
        episode_return=jnp.mean(jnp.sum(trajectory.reward, axis=0)),
        episode_cost=jnp.mean(episode_cost, axis=0),
        discounted_cost=jnp.mean(discounted_cost, axis=0),
        episodes_within=jnp.mean(within.astype(jnp.float32)),
        length=jnp.mean(jnp.sum(trajectory.valid, axis=0)),
        discounted_length=jnp.mean(jnp.sum(weights[..., 0] * trajectory.valid, axis=0)),
        nonfinite=trajectory.nonfinite,
        critic_nonfinite=jnp.zeros_like(trajectory.nonfinite),
        obs_mean=obs_mean,
        obs_var=jnp.sum(seen * (trajectory.obs - obs_mean) ** 2, axis=(0, 1)),
    )


def make_batch(
    trajectory: Trajectory,
    normaliser: Normaliser,
    cost_limit: Float[Array, " m"],
    settings: EstimationSettings,
    cost_values: Values | None = None,
) -> tuple[Batch, EpisodeStats]:
    """The batch of one task's trajectory under limit h, and what its episodes earned and cost.

    cost_values: V of the costs where another critic than the task's own has them.

    Advantages are centred and keep their units: L_R is reward per step, c is cost per step. (Dividing them by
    their spread, as is usual, would change no step, but the weight of a task in the meta-loss.)
    """
    z, valid = normaliser(trajectory.obs), trajectory.valid
    advantage, lost = advantages(trajectory, z, normaliser(trajectory.final_obs), settings, cost_values)
    reward_advantage, cost_advantage = advantage[..., 0], advantage[..., 1:]

    weight = _normalised(valid)
    fade = discounts(settings.gamma, valid.shape[0])[:, None]
    cost_weight = limited(settings.cost_measure, weight, _normalised(valid * fade))
    stats = eqx.tree_at(lambda s: s.critic_nonfinite, episode_stats(trajectory, cost_limit, settings), lost)
    c, error = constraint_value(trajectory, stats, cost_limit, settings)
    B, outer = valid.shape[1], settings.outer_confidence
    reward_advantage = reward_advantage - jnp.sum(weight * reward_advantage)
    cost_advantage = cost_advantage - jnp.sum(cost_weight[..., None] * cost_advantage, axis=(0, 1))
    halves = contrasts(B).T.astype(z.dtype)
    batch = Batch(
        z=_flat(z),
        action=_flat(trajectory.action),
        log_prob=_flat(trajectory.log_prob),
        reward_advantage=_flat(reward_advantage),
        cost_advantage=_flat(cost_advantage),
        weight=_flat(weight),
        cost_weight=_flat(cost_weight),
        contrast=_flat(jnp.broadcast_to(halves, (*valid.shape, halves.shape[-1]))),
        c=c,
        margin=student_quantile(settings.confidence, B) * error,
        outer_margin=student_quantile(settings.confidence if outer is None else outer, B) * error,
    )
    return batch, stats


def advantages(
    trajectory: Trajectory,
    z: Float[Array, "T B O"],
    z_final: Float[Array, "B O"],
    settings: EstimationSettings,
    cost_values: Values | None,
) -> tuple[Float[Array, "T B s"], Float[Array, ""]]:
    """Â of the reward and of every cost, s = 1 + m, and how many of their critics were not finite.

    They are signals alike, each with its own (γ, λ): one recursion, compiled once.
    """
    m = trajectory.cost.shape[-1]
    signals = jnp.concatenate([trajectory.reward[..., None], trajectory.cost], axis=-1)
    gamma = jnp.asarray([settings.gamma] + m * [settings.cost_gamma], z.dtype)
    lam = jnp.asarray([settings.lam] + m * [settings.cost_lam], z.dtype)
    critics = (settings.critic,) + m * (settings.cost_critic,)
    if cost_values is None:
        v, v_final = fit_values(trajectory, z, z_final, signals, gamma, critics)
    else:
        own = fit_values(trajectory, z, z_final, signals[..., :1], gamma[:1], critics[:1])
        v, v_final = (jnp.concatenate(pair, axis=-1) for pair in zip(own, cost_values, strict=True))
    v, v_final, lost = finite_values(v, v_final)
    over_episodes = jax.vmap(gae, in_axes=(1, 1, 0, 1, 0, None), out_axes=1)
    over_signals = jax.vmap(over_episodes, in_axes=(2, 2, 1, None, None, 0), out_axes=2)
    return over_signals(signals, v, v_final, trajectory.valid, trajectory.terminated, (gamma, lam)), lost


def shared_cost_values(trajectories: Trajectory, normaliser: Normaliser, settings: EstimationSettings) -> Values:
    """V of the costs [M, T, B, m] and at the ends [M, B, m], by one critic for the episodes of all M tasks."""
    M, T, B, m = trajectories.cost.shape
    together = Trajectory(
        **{
            name: jnp.moveaxis(value, 0, 1).reshape(T, M * B, *value.shape[3:])
            for name in ("obs", "action", "log_prob", "reward", "cost", "valid", "position")
            for value in (getattr(trajectories, name),)
        },
        terminated=trajectories.terminated.reshape(M * B),
        final_obs=trajectories.final_obs.reshape(M * B, -1),
        nonfinite=jnp.sum(trajectories.nonfinite),
    )
    z, z_final = normaliser(together.obs), normaliser(together.final_obs)
    gamma = jnp.full(m, settings.cost_gamma, z.dtype)
    v, v_final = fit_values(together, z, z_final, together.cost, gamma, m * (settings.cost_critic,))
    return jnp.moveaxis(v.reshape(T, M, B, m), 1, 0), v_final.reshape(M, B, m)


def finite_values(
    v: Float[Array, "T B s"], v_final: Float[Array, "B s"]
) -> tuple[Float[Array, "T B s"], Float[Array, "B s"], Float[Array, ""]]:
    """The values, 0 for every signal whose critic gave one that is not finite, and how many signals that were.

    With V = 0 the advantages are (λ-weighted) returns: noisier, but they still point the right way.
    """
    finite = jnp.all(jnp.isfinite(v), axis=(0, 1)) & jnp.all(jnp.isfinite(v_final), axis=0)
    return jnp.where(finite, v, 0.0), jnp.where(finite, v_final, 0.0), jnp.sum(~finite, dtype=v.dtype)


def constraint_value(
    trajectory: Trajectory, stats: EpisodeStats, cost_limit: Float[Array, " m"], settings: EstimationSettings
) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """c and its standard error, in cost per step: c = (J_C − h)/T̄, J_C the batch's mean of Σ w_t c_t, T̄ of Σ w_t.

    w_t = 1 for the episode measure, γᵗ for the discounted one. These are the weights of L_C, normalised there:

        ∇J_C = E Σ_t w_t ∇log π(a_t|s_t) Â_t = T̄ · ∇L_C,

    so that c and L_C have one unit however long episodes are and however they end. The error is std(Σ w_t c_t)/√B/T̄,
    with B − 1 degrees of freedom; a margin is the quantile of Student's distribution times it.
    """
    measure, fade = settings.cost_measure, discounts(settings.gamma, trajectory.cost.shape[0])[:, None, None]
    cost = limited(measure, trajectory.cost, trajectory.cost * fade)
    length = limited(measure, stats.length, stats.discounted_length)
    per_episode = jnp.sum(cost, axis=0)
    B = per_episode.shape[0]
    error = jnp.std(per_episode, axis=0) / jnp.sqrt(jnp.asarray(max(B - 1, 1), cost.dtype))
    unit = 1.0 / jnp.maximum(length, 1.0)
    return unit * (jnp.mean(per_episode, axis=0) - cost_limit), unit * error


def student_quantile(confidence: float, B: int) -> float:
    """Of Student's distribution for the mean of B episodes, in standard errors; 0 for one, which has no spread."""
    return float(student_t.ppf(confidence, B - 1)) if B > 1 else 0.0


def _normalised(weight: Float[Array, "T B"]) -> Float[Array, "T B"]:
    return weight / jnp.maximum(jnp.sum(weight), 1e-8)


def _flat(x: Array) -> Array:
    """[T, B, ...] as [T·B, ...]."""
    return x.reshape(-1, *x.shape[2:])
