"""What one training run is: a frozen value that travels to a Ray worker as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

from raydistill.parts import Chance, DatasetConfig, Output, Pixels, Place, Shares, Training
from raydistill.schedule import ScheduleSpec
from raydistill.tasks.base import TaskConfig


@dataclass(frozen=True)
class Distillation:
    """A teacher for a run, and how much it says; Distiller's ``--kd-*`` options.

    checkpoint: the teacher's, of raydistill or of Distiller. teacher: its arch; a checkpoint says it too. pretrained:
    take torchvision's published weights instead of a checkpoint. temperature, distill_wt, student_wt, teacher_wt: see
    `raydistill.compression.distillation`. hidden: the student's modules to the teacher's, whose states are held against
    each other by hidden_loss (mse, cosine) with the weight hidden_wt. It acts from start_epoch to end_epoch (exclusive;
    None: to the end).
    """

    teacher: str | None = None
    checkpoint: str | None = None
    pretrained: bool = False
    model_args: Mapping[str, Any] = field(default_factory=dict)
    temperature: float = 1.0
    distill_wt: float = 0.5
    student_wt: float = 0.5
    teacher_wt: float = 0.0
    start_epoch: int = 0
    end_epoch: int | None = None
    hidden: Mapping[str, str] = field(default_factory=dict)
    hidden_wt: float = 1.0
    hidden_loss: str = "mse"


@dataclass(frozen=True)
class OwnLoop:
    """A training loop of one's own: ``pkg.mod:function``, called with a `raydistill.training.Trial`, which has args."""

    name: str
    args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig(Output, Place, Pixels, Shares, Chance, Training):
    """One run of `fit`: its parts, and what belongs to none of them.

    arch: a name on the models' menu, or ``pkg.mod:factory``. task: what is trained. lr, momentum, weight_decay,
    nesterov: SGD's.
    threads: CPU threads of torch; None leaves torch's own choice. device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision: ``fp32``, ``bf16``, or ``auto``: the faster of the two on this device.
    schedule: what is compressed and when; None trains densely.
    strict: a weight that the schedule names and the model lacks is an error; if not, it is left out.
    distillation: a teacher to learn from.
    init_from: a checkpoint whose weights the run starts from (epoch 0, fresh optimizer); one of Distiller's brings its
    masks too.
    continue_from: a checkpoint that the run goes on from, in the epoch after it, with its optimizer and masks.
    mean, std: of the pixels that the weights it starts from have seen, where their file does not say it.
    effective_train_size, effective_valid_size, effective_test_size: fractions in (0, 1] of the splits that are used;
    of train other images in each epoch, of the others always the same.
    out_dir: where ``checkpoint.pt``, TensorBoard events and tables go; None writes nothing.
    statistics_dir: where statistics of calibration are found that other runs of the same data have left, and are left
    for them.
    tensorboard: write events beside the checkpoint; parameter_histograms: with a histogram of each parameter.
    train: a loop of one's own, in the place of the engine's. values: what a sweep has drawn for this run, by key path.
    resume: go on from ``out_dir/checkpoint.pt`` if it is there. deterministic: same bits on every run (CPU).
    """

    arch: str
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    _: KW_ONLY
    schedule: ScheduleSpec | None = None
    strict: bool = True
    distillation: Distillation | None = None
    init_from: str | None = None
    continue_from: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    task: TaskConfig = field(default_factory=TaskConfig)
    train: OwnLoop | None = None
    values: Mapping[str, bool | int | float | str] = field(default_factory=dict)

    @property
    def given(self) -> tuple[str, ...]:
        """The files that the run begins with, each once."""
        teacher = self.distillation.checkpoint if self.distillation is not None else None
        return tuple(sorted({path for path in (self.init_from, self.continue_from, teacher) if path is not None}))

    def moved(self, out_dir: str, where: Mapping[str, str]) -> RunConfig:
        """The same run on another machine. where: what each file of `given` is called there."""

        def there(path: str | None) -> str | None:
            return None if path is None else where[path]

        teaching = self.distillation
        if teaching is not None:
            teaching = replace(teaching, checkpoint=there(teaching.checkpoint))
        return replace(
            self,
            out_dir=out_dir,
            init_from=there(self.init_from),
            continue_from=there(self.continue_from),
            distillation=teaching,
        )
