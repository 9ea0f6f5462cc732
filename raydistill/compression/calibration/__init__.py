"""What layers read of calibration data, one after the other in the order of the forward pass."""

from raydistill.compression.calibration.sums import DAMPING, PRODUCTS, SQUARES, Sums, inverse_factor

__all__ = ["DAMPING", "PRODUCTS", "SQUARES", "Sums", "inverse_factor"]
