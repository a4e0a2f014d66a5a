"""The families' names at Gymnasium. Knows no JAX: `import metacpo` registers them, and must not wait for it."""

import gymnasium

# Those of metacpo.envs.ENVIRONMENTS, which cannot be imported here without JAX; a test compares the two.
FAMILIES = (
    "point-circle",
    "car-circle",
    "point-circle-hazard",
    "car-circle-hazard",
    "point-button-hazard",
    "point-circle-signs",
    "car-circle-wheels",
    "navigation",
    "navigation-lanes",
    "bandit",
    "tabular",
    "thruster",
)


def gymnasium_id(name: str) -> str:
    """ "point-circle" -> "metacpo/PointCircle-v0"."""
    return f"metacpo/{''.join(word.capitalize() for word in name.split('-'))}-v0"


def register() -> None:
    """Register every family that is not registered yet.

    Without max_episode_steps, which would put Gymnasium's TimeLimit round environments that truncate by themselves.
    """
    for name in FAMILIES:
        if gymnasium_id(name) not in gymnasium.registry:
            gymnasium.register(
                gymnasium_id(name),
                entry_point="metacpo.envs.gymnasium.exporting:make_env",
                vector_entry_point="metacpo.envs.gymnasium.exporting:make_vector_env",
                kwargs={"name": name},
            )
