"""Quantization of a trained network as a policy: when the last epoch has been trained, before it is validated."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from raydistill.compression.calibration.stages import Batches
from raydistill.compression.copying import copy_of
from raydistill.compression.masks import MaskSet
from raydistill.compression.policies.base import Policy
from raydistill.compression.post_training import PostTrained, Steps, mended, post_train, rounded_over_ranges
from raydistill.compression.quantizers.kept_statistics import KeptStatistics
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import Change, StructureChange
from raydistill.errors import ABSENT, ConfigError, Fault


@dataclass(frozen=True)
class PostTrainingControls:
    """A policy's ``args``, as the options of ``compress --quantize-eval`` are called.

    evidence_minibatches: how many batches of the calibration data are looked at. equalize, adaround, gptq,
    gptq_damping, bias_correction: see `post_training.Steps`.
    """

    evidence_minibatches: int = 16
    equalize: bool = False
    adaround: int = 0
    gptq: bool = False
    gptq_damping: float = 0.01
    bias_correction: bool = False

    def __post_init__(self) -> None:
        for name, low in (("evidence_minibatches", 1), ("adaround", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise ConfigError(Fault(name, f"must be a whole number from {low} up", value))
        for name in ("equalize", "gptq", "bias_correction"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(Fault(name, "must be true or false", getattr(self, name)))
        damping = self.gptq_damping
        if isinstance(damping, bool) or not isinstance(damping, (int, float)) or not 0.0 < damping <= 1.0:
            raise ConfigError(Fault("gptq_damping", "must be above 0 and at most 1", damping))

    @property
    def steps(self) -> Steps:
        compensated = self.gptq_damping if self.gptq else None
        return Steps(self.equalize, self.adaround, self.bias_correction, compensated)


class PostTrainingPolicy(Policy):
    """Folds batch norms, calibrates, and rounds weights and activations from then on.

    example_input: the network's positional inputs. calibration: None where there are none, which is an error once they
    are needed: the quantizer names no statistics, or a step looks at data. kept: statistics of other runs.
    """

    ends = True

    def __init__(
        self,
        quantizer: PostTrainLinearQuantizer,
        model: nn.Module,
        masks: MaskSet,
        example_input: Sequence[Any] | None,
        calibration: Batches | None,
        controls: PostTrainingControls,
        kept: KeptStatistics | None = None,
    ) -> None:
        if example_input is None:
            rule = "needs an example of the network's input, to see what follows what"
            raise ConfigError(Fault("example_input", rule, ABSENT, "give build(..., example_input=...)"))
        self._quantizer, self._model, self._masks = quantizer, model, masks
        self._example, self._calibration, self._controls = tuple(example_input), calibration, controls
        self._kept = kept and replace(kept, about=f"{kept.about}, {controls.evidence_minibatches} minibatches")
        self._done = False
        self._check()

    def _check(self) -> None:
        """Raises ConfigError as `before_validation` would, which comes when all epochs are trained."""
        if quantization_of(self._model) is not None:
            rule, way_out = "the network is quantized already", "begin with a checkpoint of floats"
            raise ConfigError(Fault(self._quantizer.name, rule, ABSENT, way_out))
        network = copy_of(self._model)
        post_train(network, self._quantizer, self._inputs())

    def says(self, when: PolicyTime) -> str:
        del when
        return f"rounds the trained network by {type(self._quantizer).__name__}"

    def before_validation(self, when: PolicyTime) -> None:
        del when
        ranks = self._masks.ranks
        report: PostTrained | None = None

        def by_first() -> None:
            nonlocal report
            batches, steps = self._batches(), self._controls.steps
            rounded = rounded_over_ranges(
                self._model, self._quantizer, self._inputs(), batches, steps=steps, kept=self._kept
            )
            report = mended(self._model, rounded, batches, steps)

        ranks.by_first(by_first)
        changes = ranks.of_first(None if report is None else report.changes)
        assert changes is not None  # the first rank has made them
        if ranks.several:
            self._follow(changes)
        for change in changes:
            for listener in self._masks.listeners:
                listener(StructureChange(change, {}))
        self._done = True

    def on_epoch_end(self, when: PolicyTime, metrics: Mapping[str, float]) -> None:
        if not self._done:
            rule = "rounds before validation, and the training loop has not said that it is to begin"
            way_out = "call scheduler.before_validation(epoch) there"
            raise ConfigError(Fault(self._quantizer.name, rule, ABSENT, way_out))

    def at_once(self, when: PolicyTime) -> None:
        post_train(self._model, self._quantizer, self._inputs())

    def _follow(self, changes: Sequence[Change]) -> None:
        """What the first rank did, on the others."""
        ranks = self._masks.ranks
        if not ranks.first:
            for change in changes:
                change.apply(self._model)
        self._model.load_state_dict(ranks.tensors_of_first(self._model.state_dict()))

    def _inputs(self) -> tuple[Any, ...]:
        device = next(self._model.parameters()).device
        return tuple(value.to(device) if isinstance(value, Tensor) else value for value in self._example)

    def _batches(self) -> Batches:
        def batches() -> Iterable[Sequence[Any]]:
            if self._calibration is None:
                rule, way_out = "needs calibration data", "give them: build(..., calibration=batches)"
                name = type(self._quantizer).__name__
                raise ConfigError(Fault(self._quantizer.name, f"{name} {rule}", ABSENT, way_out))
            return itertools.islice(self._calibration(), self._controls.evidence_minibatches)

        return batches
