"""Several runs as one network, in one process: `fit_packed`, and `Pack` for who decides epoch by epoch."""

from raydistill.training.packing.pack import Pack, fit_packed

__all__ = ["Pack", "fit_packed"]
