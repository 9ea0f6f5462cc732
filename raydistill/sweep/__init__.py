"""Sweeps: many trials of the engine through Ray Tune, one journal, one Pareto front.

This room and cluster/ import Ray; the rest of the package does not.
"""
