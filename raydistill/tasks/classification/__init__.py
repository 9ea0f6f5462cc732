"""Classification of images."""

from raydistill.tasks.classification.task import Classification, ImageShape

__all__ = ["Classification", "ImageShape"]
