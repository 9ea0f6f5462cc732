"""Objects in images: boxes and their classes, and masks where there are any."""

from raydistill.tasks.detection.task import Detection

__all__ = ["Detection"]
