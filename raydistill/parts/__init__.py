"""Parts of a run: dataclasses whose fields say once what may stand in them, how they are asked for on the command line
and what depends on them. A sweep file's sections, the options and a run's identity are made of that."""

from raydistill.parts.amc import AMC
from raydistill.parts.check import out_of_bounds
from raydistill.parts.data import DatasetConfig
from raydistill.parts.one_shot import OneShot
from raydistill.parts.optimizer import Optimizer
from raydistill.parts.pixels import Pixels, pixel_faults
from raydistill.parts.quantization import PostTraining
from raydistill.parts.setting import Role, Setting, hashed, identity, names, said, settings
from raydistill.parts.training import Arithmetic, Batches, Chance, Optimization, Output, Place, Shares, Training

__all__ = [
    "AMC",
    "Arithmetic",
    "Batches",
    "Chance",
    "DatasetConfig",
    "OneShot",
    "Optimization",
    "Optimizer",
    "Output",
    "Pixels",
    "Place",
    "PostTraining",
    "Role",
    "Setting",
    "Shares",
    "Training",
    "hashed",
    "identity",
    "names",
    "said",
    "out_of_bounds",
    "pixel_faults",
    "settings",
]
