"""Gymnasium both ways: its environments as ours, ours as its."""
