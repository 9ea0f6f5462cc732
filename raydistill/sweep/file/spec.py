"""The sweep file's sections as typed values. What a section may hold stands here and nowhere else.

Paths in the file are relative to the file. See search_spaces/simplenet.yaml for an example with every section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from raydistill.parts import DatasetConfig, Optimizer, Pixels, Role, Setting, Training, pixel_faults
from raydistill.parts.kinds import NUMBER, Count, NotNegative, Number, Own, Positive, Whole
from raydistill.parts.optimizer import SGD
from raydistill.parts.training import of_no_epochs
from raydistill.tasks.base import TaskConfig
from raydistill.training.config import OwnLoop

Pack = Annotated[int, NUMBER, Field(ge=1, le=1024)] | Literal["auto"]

_FREE = Setting(role=Role.FREE)
"""What a resumed sweep may say otherwise. num_samples may only grow. Constraints decide what is on the front and
nothing else: it is made anew."""

MOST_TRIALS = 100_000
"""Of one sweep: all that are known beforehand are planned before it starts."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class ModelSection(Section):
    """The network. arch: a name of the menu (``raydistill models``) or ``pkg.mod:factory``. args: what the factory
    takes besides the number of classes; of torchvision's networks also ``pretrained: true``.
    """

    arch: str
    args: dict[str, Any] = Field(default_factory=dict)


class DatasetSection(Section, DatasetConfig):  # type: ignore[misc]  # mypy does not see that it is frozen
    """The data; what a field may be for this dataset, the dataset itself checks. fallback: a dataset to go on with
    where this one cannot be had. split_seed: of the validation split. in_memory: ``auto`` decodes once if all fits.
    download: whether a dataset that is nowhere may be fetched. args: what one's own factory finds in its config.
    """

    args: dict[str, Any] = Field(default_factory=dict)

    def config(self) -> DatasetConfig:
        return DatasetConfig(**dict(self))


class TaskSection(Section):
    """What is trained. name: of the menu (``raydistill tasks``) or ``pkg.mod:Class``. args: what it is made with."""

    name: Annotated[str, Field(min_length=1)] = "classification"
    args: dict[str, Any] = Field(default_factory=dict)

    def config(self) -> TaskConfig:
        return TaskConfig(self.name, self.args)


class TrainSection(Section):
    """A training loop of one's own; a bare ``pkg.mod:function`` is short for its name. name: ``pkg.mod:function``.
    args: what it finds in ``trial.args``.
    """

    name: Own
    args: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, said: Any) -> Any:
        return {"name": said} if isinstance(said, str) else said

    def loop(self, drawn: Mapping[str, Any] | None = None) -> OwnLoop:
        return OwnLoop(self.name, {**self.args, **(drawn or {})})


class TrainingSection(Section, Training):  # type: ignore[misc]
    """How every trial is trained. `epochs` cannot be searched: trials are compared epoch by epoch. nesterov: of SGD's
    momentum. optimizer: another one than SGD, or more than the rate: clipping, warm-up, averaging.
    """

    @model_validator(mode="before")
    @classmethod
    def _no_epochs(cls, said: Any) -> Any:
        return of_no_epochs(said) if isinstance(said, Mapping) else said

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> TrainingSection:
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum above 0")
        return self

    @model_validator(mode="after")
    def _of_the_optimizer(self) -> TrainingSection:
        """What has SGD's default value, and was written all the same; `check_optimization` sees other values."""
        idle = sorted(self.model_fields_set & {"lr", "weight_decay"})
        if self.optimizer.name != SGD and idle:
            raise ValueError(f"{idle[0]} is SGD's, the optimizer is {self.optimizer.name}; say it in optimizer")
        return self


class BaselineSection(Section, Pixels):  # type: ignore[misc]  # mypy does not see that it is frozen
    """The dense network that all trials start from: trained by the sweep, or taken from `checkpoint`.

    epochs, batch_size and lr default to the training section's, as everything else does. schedule: LR schedulers only.
    checkpoint: a trained network of any kind that is read; nothing is trained then. mean, std: of the pixels that its
    weights have seen, where it does not say it.
    """

    epochs: Count | None = None
    batch_size: Count | None = None
    lr: Positive | None = None
    schedule: dict[str, Any] | None = None
    checkpoint: str | None = None

    @model_validator(mode="after")
    def _pixels_are_of_a_checkpoint(self) -> BaselineSection:
        for fault in pixel_faults(self):
            raise ValueError(str(fault))
        if self.mean is not None and self.checkpoint is None:
            raise ValueError("mean and std are for the weights of 'checkpoint', and there is none; leave them out")
        return self

    def of_training(self, optimizer: Optimizer | None = None) -> dict[str, Any]:
        """What is said otherwise than in the training section. optimizer: the one there, which may have the rate."""
        said = {key: value for key, value in dict(self).items() if key in TrainingSection.model_fields}
        said = {key: value for key, value in said.items() if value is not None}
        if "lr" in said and optimizer is not None and (optimizer.name != SGD or optimizer.lr is not None):
            said["optimizer"] = replace(optimizer, lr=said.pop("lr"))
        return said


class TrunkSection(Section):
    """A run between the baseline and the trials, at a constant rate, in which one threshold for all weights together
    rises; ``trunk.sparsity`` in the search is where on its way a trial branches off, with its masks.

    epochs: of the trunk. branches: how many places to branch off are kept, evenly over its epochs; fewer where there
    are not so many epochs. lr, batch_size: left out, the training section's. initial_sparsity, final_sparsity: of its
    first epoch and its last; the density falls by the same factor in every epoch. weights: names or globs.
    ranking, granularity: of the pruner (see ``RankedPruner``).
    """

    epochs: Count
    branches: Annotated[int, NUMBER, Field(ge=1, le=1000)] = 40
    lr: Positive | None = None
    batch_size: Count | None = None
    initial_sparsity: Annotated[float, NUMBER, Field(ge=0, lt=1)] = 0.3
    final_sparsity: Annotated[float, NUMBER, Field(gt=0, lt=1)] = 0.97
    weights: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["*"])
    ranking: str = "magnitude"
    granularity: str = "Element"

    @property
    def kept(self) -> tuple[int, ...]:
        """The numbers of epochs after which its network is kept, the last among them."""
        count = min(self.branches, self.epochs)
        return tuple(sorted({round(self.epochs * (i + 1) / count) for i in range(count)}))

    def schedule(self) -> dict[str, Any]:
        said = ("initial_sparsity", "final_sparsity", "weights", "ranking", "granularity")
        pruner = {"class": "RankedPruner", "rate": "exponential", "scope": "global"}
        when = {"starting_epoch": 0, "ending_epoch": self.epochs, "frequency": 1}
        return {
            "version": 1,
            "pruners": {"trunk": {**pruner, **{name: getattr(self, name) for name in said}}},
            "policies": [{"pruner": {"instance_name": "trunk"}, **when}],
        }


class DistillationSection(Section):
    """Trials learn from a teacher as well as from the labels: the dense baseline, or another checkpoint.

    teacher: ``baseline`` or a checkpoint. arch: the teacher's, needed where its checkpoint does not say it or says one
    that is not on the menu. temperature: softens both outputs. distill_wt: of the distillation loss. student_wt: of the
    loss on the labels. start_epoch: the first with a teacher. end_epoch: exclusive; left out, the trial's end. hidden:
    the network's modules to the teacher's, whose hidden states are held against each other too. hidden_wt: what they
    count. hidden_loss: mse, or cosine.
    """

    teacher: str = "baseline"
    arch: str | None = None
    temperature: Positive = 4.0
    distill_wt: NotNegative = 0.7
    student_wt: NotNegative = 0.3
    start_epoch: Whole = 0
    end_epoch: Count | None = None
    hidden: dict[str, str] | None = None
    hidden_wt: NotNegative = 1.0
    hidden_loss: Literal["mse", "cosine"] = "mse"


M = TypeVar("M", bound="Menu")
AUTO = "auto"
"""In place of a method's name: see `raydistill.sweep.file.automatic`."""


class Menu(Section):
    """A section whose `name` chooses a method; an option that the method has no use for is a fault.

    args: what one's own, ``pkg.mod:Class``, is made with.
    """

    uses: ClassVar[Mapping[str, frozenset[str]]]
    unnamed: ClassVar[str] = AUTO
    """Whose options stand there where no name does."""
    args: dict[str, Any] | None = None

    @property
    def own(self) -> bool:
        return ":" in getattr(self, "name")  # noqa: B009 - each menu has its own kind of name

    @model_validator(mode="after")
    def _no_idle_option(self) -> Menu:
        name = getattr(self, "name")  # noqa: B009 - each menu has its own kind of name
        uses = frozenset({"args"}) if self.own else self.uses[name]
        idle = sorted(self.model_fields_set - {"name"} - uses)
        if idle:
            known = ", ".join(sorted(uses)) or "none"
            raise ValueError(f"{name} has no use for {', '.join(idle)} (its options: {known})")
        return self

    @classmethod
    def of_journal(cls: type[M], said: Mapping[str, Any]) -> M:
        """A section as a journal has it, where every option stands, those too that its method has no use for."""
        name = str(said["name"])
        uses = frozenset({"args"}) if ":" in name else cls.uses[name]
        section = cls(**{"name": name, **{key: said[key] for key in uses if said.get(key) is not None}})
        return section.model_copy(update={key: said[key] for key in cls.model_fields if key in said})


_RUNGS = frozenset({"grace_period", "reduction_factor"})


class TrialSchedulerSection(Menu):
    """When trials stop early. name: of a method, or one's own, ``pkg.mod:Class``; ``auto``, or left out, what was
    measured to be best for such a sweep (of options without a name, asha). args: what one's own is made with.
    grace_period: epochs before any does; left out, a quarter of a trial.

    reduction_factor: one in so many goes on at a rung. mode: ``stop`` for good at a rung, or pause and ``promote`` the
    best. spread: which members of a rank count as best. brackets: Hyperband's. score: what asha, hyperband and
    median compare, a weighted sum of figures; left out, the metric that selects and 0.05
    of the planned sparsity. moasha compares the objectives themselves.
    """

    unnamed = "asha"
    uses: ClassVar = {
        AUTO: frozenset(),
        "moasha": _RUNGS | {"mode", "spread", "brackets"},
        "asha": _RUNGS | {"score"},
        "hyperband": _RUNGS | {"score", "brackets", "mode"},
        "median": frozenset({"grace_period", "score"}),
        "none": frozenset(),
    }

    name: Literal["auto", "moasha", "asha", "hyperband", "median", "none"] | Own = "auto"
    grace_period: Count | None = None
    reduction_factor: Annotated[float, NUMBER, Field(gt=1, allow_inf_nan=False)] = 2.0
    mode: Literal["stop", "promote"] = "stop"
    spread: Literal["epsilon_net", "crowding", "hypervolume"] = "epsilon_net"
    brackets: Count | None = None
    score: dict[str, Number] | None = None

    @model_validator(mode="before")
    @classmethod
    def _options_alone_are_ashas(cls, said: Any) -> Any:
        nameless = isinstance(said, Mapping) and said and "name" not in said
        return {"name": cls.unnamed, **said} if nameless else said


class SearcherSection(Menu):
    """How values are drawn. name: of a method, or one's own, ``pkg.mod:Class``; ``auto``, or left out, what was
    measured to be best for such a sweep. args: what one's own is made with. startup: trials spread evenly before
    results are learnt from; left out, a quarter of all, 4 to 10.

    points: values the grid takes of a continuous dimension. population: NSGA-II's. step: evolution's, in shares of a
    range. parents: front members that evolution mutates. protocol: how amc's episodes are rewarded. agent: who plays
    them. heatup_episodes: of amc, drawn evenly before the agent learns. training_episodes: those after them.
    action_range: the least and the most that amc prunes of a layer. score: what tpe learns from; the others learn all
    objectives.
    """

    uses: ClassVar = {
        AUTO: frozenset(),
        "random": frozenset(),
        "sobol": frozenset(),
        "grid": frozenset({"points"}),
        "tpe": frozenset({"startup", "score"}),
        "motpe": frozenset({"startup"}),
        "nsga2": frozenset({"startup", "population"}),
        "gp": frozenset({"startup"}),
        "qnehvi": frozenset({"startup"}),
        "evolution": frozenset({"startup", "step", "parents"}),
        "additive": frozenset({"startup"}),
        "amc": frozenset({"protocol", "agent", "heatup_episodes", "training_episodes", "action_range"}),
    }

    name: (
        Literal[
            "auto", "random", "sobol", "grid", "tpe", "motpe", "nsga2", "gp", "qnehvi", "evolution", "additive", "amc",
        ] | Own
    ) = "auto"  # fmt: skip
    startup: Count | None = None
    points: Count | None = None
    population: Annotated[int, NUMBER, Field(ge=2)] | None = None
    step: Annotated[float, NUMBER, Field(gt=0, le=1)] | None = None
    parents: Count | None = None
    protocol: Literal["mac-constrained", "accuracy-guaranteed", "punish-agent"] | None = None
    agent: Literal["DDPG", "Random-policy"] | None = None
    heatup_episodes: Count | None = None
    training_episodes: Whole | None = None
    action_range: Annotated[list[Number], Field(min_length=2, max_length=2)] | None = None
    score: dict[str, Number] | None = None

    def options(self) -> dict[str, Any]:
        """What the searcher is made with, besides the space and the seed."""
        chosen = self.uses[self.name] - {"score"}
        return {key: value for key in sorted(chosen) if (value := getattr(self, key)) is not None}


class WarmSweepSection(Section):
    """An entry of ``warm_start``: at most `top` trials of a finished sweep, the best ranks first, evenly along each.

    sweep: its name. tracking_uri: where MLflow has it; left out, this sweep's own store, then the sweep's folder in the
    same storage.
    """

    sweep: Annotated[str, Field(min_length=1)]
    tracking_uri: str | None = None
    top: Count


class ResourcesSection(Section):
    """What one trial takes, or each of its workers. Left out: one GPU if any, else one CPU core. cpu: cores. gpu: a
    fraction shares one. pack: so many trials share what one takes, trained as one network; ``auto``: as many as are
    measured to be fastest, one where packing is no gain.
    """

    cpu: Positive | None = None
    gpu: NotNegative = 0.0
    pack: Pack = 1


class AliasSection(Section):
    """Which trial's model has the alias, as in ``small: {best: top1, where: size_bytes <= 150000}``: of all that have
    finished and meet the sweep's constraints the one that ``raydistill pick`` would take. best: the best in this
    figure, of a metric or of the network; left out, what the sweep optimises beside the metric that selects. where:
    bounds that it has to meet, one or a list.
    """

    best: str | None = None
    where: str | list[str] | None = None


class TrackingSection(Section):
    """uri: an MLflow tracking server; left out, MLflow's files stand in the sweep's storage."""

    uri: str | None = None


class SweepSections(Section):
    """The whole file. version: of the format. name: of the sweep, its folder and its model in the registry. model: the
    network. task: what is trained. train: a training loop of one's own. dataset: the data. training: how every trial is
    trained. baseline: the dense network that all trials start from. trunk: a run that prunes on from there, which
    trials branch off from. distillation: a teacher for the trials. schedule:
    what is compressed and when, before any drawn value. search: what is drawn, from which distribution. goal: bounds on
    the network that is wanted, such as ``macs <= 0.5x``; schedule and search follow from it where they are left out.
    objectives:
    figures and their directions, max or min. constraints: what breaks one is shown, but not on the front. aliases:
    names in the model registry, and which trial's model each is. trial_scheduler: which trials stop early. searcher:
    how values are drawn. warm_start: values, schedules or trials of another sweep that are the first trials; ``auto``,
    the default for searchers that learn of layers' levels, places some by what each layer loses by itself, ``{auto:
    100}`` chooses them of a hundred that are pruned at once.
    num_samples: how many trials. confirm: how often each member of the front is trained again, with other seeds. seed:
    of the draws and of training. resources_per_trial: what one takes. workers_per_trial: each trial trains on so many
    workers together, each with resources_per_trial. max_failures: how often a trial whose process dies starts again.
    tracking: where MLflow is.
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)]
    model: ModelSection
    task: TaskSection = Field(default_factory=TaskSection)
    train: TrainSection | None = None
    dataset: DatasetSection = Field(default_factory=DatasetSection)
    training: TrainingSection = Field(default_factory=TrainingSection)
    baseline: BaselineSection = Field(default_factory=BaselineSection)
    trunk: TrunkSection | None = None
    distillation: DistillationSection | None = None
    schedule: str | dict[str, Any]
    search: dict[str, Any]
    goal: str | list[str] | None = None
    objectives: dict[str, str] | None = None
    constraints: Annotated[list[Any], _FREE] = Field(default_factory=list)
    aliases: Annotated[dict[str, AliasSection], _FREE] = Field(default_factory=dict)
    trial_scheduler: TrialSchedulerSection = Field(default_factory=TrialSchedulerSection)
    searcher: SearcherSection = Field(default_factory=SearcherSection)
    warm_start: Any = None  # see warm_entries
    num_samples: Annotated[int, NUMBER, Field(ge=1, le=MOST_TRIALS), _FREE] = 16
    confirm: Annotated[Whole, _FREE] = 0
    seed: Whole = 0
    resources_per_trial: Annotated[ResourcesSection | None, _FREE] = None
    workers_per_trial: Annotated[Count, _FREE] = 1
    max_failures: Annotated[Whole, _FREE] = 1
    tracking: Annotated[TrackingSection, _FREE] = Field(default_factory=TrackingSection)


def beside(file: Path, path: str) -> Path:
    """A path named in `file`: absolute, ``~`` expanded, relative to the file's folder."""
    return (file.parent / Path(path).expanduser()).resolve()
