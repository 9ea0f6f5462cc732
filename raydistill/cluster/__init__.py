"""Ray itself, and Ray Train: a Ray here or a cluster that is there, and one training run on several workers of it.

This room and sweep/ import Ray; the rest of the package does not.
"""
