"""The run that the tests of this folder evaluate: its policy has not learned anything."""

from metacpo.config.schema import Config

SPLITS = ("held-out", "shifted")
CONFIG = Config.preset("point-circle-smoke", adaptation={"tasks": 4, "steps": 1, "episodes": 3}, cost_limit=20.0)
