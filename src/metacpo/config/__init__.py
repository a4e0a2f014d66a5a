"""Typed settings: reading them, what they may be, and where they are saved."""
