"""Pictures of adapted episodes: camera videos, videos from above, plots of the paths. Never in a run's way."""

from metacpo.render.films import Request, render

__all__ = ["Request", "render"]
