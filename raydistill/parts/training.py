"""The parts of a training run. `raydistill.training.RunConfig` is made of them, a sweep's ``training`` section too.

Its annotations are no strings: pydantic before 2.10 would look for their names in the sections' module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Lt

from raydistill.parts.kinds import NUMBER, Count, NotNegative, Positive, Share, Whole
from raydistill.parts.optimizer import Optimizer
from raydistill.parts.setting import HASH, IDENTITY, Role, Setting

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def of_no_epochs(said: Mapping[str, object]) -> dict[str, Any]:
    """What 0 epochs stand for: one in which the schedule acts and the network is validated, and nothing is trained."""
    none = said.get("epochs") == 0 and not isinstance(said["epochs"], bool)
    return {**said, "epochs": 1, "trains": False} if none else dict(said)


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How long it trains, and on how much at a time. trains: False leaves an epoch its pruning and its validation."""

    epochs: Annotated[
        Whole, Setting("Epochs in all; 0: nothing is trained (trains).", role=Role.MAY_CHANGE, searchable=False)
    ] = 60
    batch_size: Annotated[Count, Setting("Samples a step.", ("-b",))] = 256
    trains: Annotated[bool, Setting(option=None, searchable=False, younger=(IDENTITY, HASH))] = True


_SGD = Optimizer()


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """SGD's arguments, and the optimizer where it is another one."""

    lr: Annotated[Positive, Setting("Learning rate.", ("--learning-rate",), excluded_too=True)] = 0.05
    momentum: Annotated[float, NUMBER, Ge(0), Lt(1), Setting("SGD's momentum.")] = 0.9
    weight_decay: Annotated[NotNegative, Setting("SGD's weight decay.", ("--wd",))] = 1e-4
    nesterov: Annotated[bool, Setting(option=None)] = False
    optimizer: Annotated[Optimizer, Setting(option=None, younger=(IDENTITY, HASH))] = _SGD


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """How it computes. A run that goes on has its checkpoint's precision."""

    deterministic: Annotated[
        bool, Setting("The same bits on every run (CPU).", ("--det",), role=Role.MAY_CHANGE, searchable=False)
    ] = False
    precision: Annotated[
        Precision,
        Setting("fp32, bf16, fp16, or auto: the faster of the first two here.", role=Role.MAY_CHANGE),
    ] = "auto"


@dataclass(frozen=True, kw_only=True)
class ShareOfTrain:
    effective_train_size: Annotated[
        Share,
        Setting("Fraction of train that an epoch takes, others in each.", ("--etrs",), younger=(IDENTITY,)),
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class Training(ShareOfTrain, Arithmetic, Optimization, Batches):
    """What a sweep file's ``training`` section says."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    seed: Annotated[Whole, Setting("Seed of weights, order and augmentation.")] = 0


@dataclass(frozen=True, kw_only=True)
class Shares(ShareOfTrain):
    """Fractions in (0, 1] of the splits that are used."""

    effective_valid_size: Annotated[
        Share, Setting("Fraction of the validation split that is used.", ("--evs",), role=Role.MAY_CHANGE)
    ] = 1.0
    effective_test_size: Annotated[
        Share, Setting("Fraction of the test split that is used.", ("--etes",), role=Role.MAY_CHANGE)
    ] = 1.0


@dataclass(frozen=True, kw_only=True)
class Place:
    """What it runs on."""

    device: Annotated[str, Setting(option=None, role=Role.FREE)] = "auto"
    threads: Annotated[int | None, Ge(1), Setting(option=None, role=Role.FREE)] = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """What it leaves behind."""

    out_dir: Annotated[str | None, Setting(option=None, role=Role.FREE)] = None
    statistics_dir: Annotated[str | None, Setting(option=None, role=Role.FREE)] = None
    resume: Annotated[bool, Setting(option=None, role=Role.FREE)] = True
    checkpoint_every: Annotated[Count, Setting(option=None, role=Role.FREE)] = 1
    tensorboard: Annotated[bool, Setting(option=None, role=Role.FREE)] = True
    parameter_histograms: Annotated[
        bool, Setting("Histograms of all parameters in TensorBoard.", option="param-hist", role=Role.FREE)
    ] = False
