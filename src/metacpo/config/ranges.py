"""What every number of the settings must lie in."""

# What every number must lie in, by dotted name. One notation for the check and for the message.
RANGES = {
    "seed": "[0, 4294967295]",
    "total_steps": "[1, inf)",
    "iterations": "[0, inf)",
    "cost_limit": "[0, inf)",
    "limit_factors": "[0, inf)",
    "hidden": "[1, inf)",
    "initial_std": "(0, inf)",
    "history": "[0, 64]",
    "checkpoint_every": "[1, inf)",
    "warmup.iterations": "[0, inf)",
    "warmup.tasks": "[1, inf)",
    "warmup.episodes": "[1, inf)",
    "warmup.max_kl": "(0, inf)",
    "warmup.damping": "[0, inf)",
    "warmup.confidence": "(0, 1)",
    "meta.tasks": "[1, inf)",
    "meta.steps": "[0, inf)",
    "meta.episodes": "[1, inf)",
    "estimation.gamma": "(0, 1]",
    "estimation.lam": "[0, 1]",
    "estimation.cost_gamma": "(0, 1]",
    "estimation.cost_lam": "[0, 1]",
    "estimation.confidence": "(0, 1)",
    "estimation.outer_confidence": "(0, 1)",
    "rule.penalty": "[0, inf)",
    "rule.multiplier": "(0, inf)",
    "rule.proportional": "[0, inf)",
    "rule.integral": "[0, inf)",
    "rule.derivative": "[0, inf)",
    "rule.tolerance": "[0, inf)",
    "rule.step_size": "(0, inf)",
    "rule.kl_price": "(0, inf)",
    "rule.kl_cost_price": "[0, inf)",
    "adaptation.steps": "[0, inf)",
    "adaptation.episodes": "[1, inf)",
    "adaptation.tasks": "[1, inf)",
} | {
    f"{region}.{name}": allowed
    for region in ("inner", "outer")
    for name, allowed in {
        "max_kl": "(0, inf)",
        "objective_kl_fraction": "(0, 1]",
        "damping": "[0, inf)",
        "cg_iterations": "[1, inf)",
        "cg_tolerance": "[0, inf)",
        "fisher_stride": "[1, inf)",
        "backtrack_ratio": "(0, 1)",
        "backtracks": "[0, inf)",
    }.items()
}
