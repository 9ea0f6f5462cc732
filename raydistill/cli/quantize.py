"""What ``raydistill compress`` does under ``--quantize-eval`` and ``--qe-calibration``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.errors import ABSENT, ConfigError, Fault, close_match

if TYPE_CHECKING:
    from rich.console import Console

    from raydistill.analysis.quantized import Options
    from raydistill.compression.quantizers.bit_search import Step
    from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
    from raydistill.metrics import Metric
    from raydistill.parts import PostTraining
    from raydistill.tasks import Task
    from raydistill.training import RunConfig

BIT_SEARCH = "bit_search.json"
STATISTICS = "acts_quantization_stats.yaml"
CHECKPOINT = "quantized.pt"
MODES = {
    "sym": "SYMMETRIC",
    "sym_restr": "SYMMETRIC_RESTRICTED",
    "asym_s": "ASYMMETRIC_SIGNED",
    "asym_u": "ASYMMETRIC_UNSIGNED",
}
_SOURCES = ("stats_file", "dynamic", "calibration", "config_file")
_INITS = {"LP": "LP", "NONE": "NONE", "L1": "L1", "L2": "L2", "L3": "L3"}
_CLIPS = ("AVG", "GAUSS", "LAPLACE", "MSE")


def quantizer_of(said: PostTraining) -> tuple[PostTrainLinearQuantizer, Options | None]:
    """What the options ask for, and how clipping values are searched, if at all.

    Raises:
        ConfigError: an option cannot be, or two of them do not go together.
    """
    from raydistill.analysis.quantized import quantizer_of_file

    given = [name for name in _SOURCES if getattr(said, name) not in (None, False)]
    if len(given) > 1:
        options = [f"--qe-{name.replace('_', '-')}" for name in given]
        raise ConfigError(Fault(options[1], f"cannot stand beside {options[0]}", ABSENT, "keep one of the two"))
    if said.lapq and said.group_size is not None:
        rule = "cannot stand beside --qe-group-size: it searches one range a weight"
        raise ConfigError(Fault("--qe-lapq", rule, ABSENT, "keep one of the two"))
    search = _search(said) if said.lapq else None
    if said.config_file is not None:
        return quantizer_of_file(said.config_file), search
    return _from_options(said), search


def _from_options(said: PostTraining) -> PostTrainLinearQuantizer:
    from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer

    floats = {"bits_activations": None, "bits_weights": None}
    overrides: dict[str, Mapping[str, Any]] = {_exactly(layer): {"clip_acts": "NONE"} for layer in said.no_clip_layers}
    overrides |= {_exactly(layer): floats for layer in said.no_quant_layers}
    clip = said.clip_acts
    if said.lapq and said.lapq_init_mode.upper() in _CLIPS:
        clip = said.lapq_init_mode
    arguments: dict[str, Any] = {
        "bits_activations": said.bits_acts or None,
        "bits_parameters": said.bits_wts or None,
        "bits_accum": said.bits_accum,
        "mode": {
            "weights": _mode(said.mode_wts or said.mode, "--qe-mode-wts" if said.mode_wts else "--qe-mode"),
            "activations": _mode(said.mode_acts or said.mode, "--qe-mode-acts" if said.mode_acts else "--qe-mode"),
        },
        "clip_acts": clip,
        "clip_n_stds": said.clip_n_stds,
        "clip_percentile": said.clip_percentile,
        "per_channel_wts": said.per_channel,
        "scale_approx_mult_bits": said.scale_approx_bits,
        "group_size": said.group_size,
        "model_activation_stats": said.stats_file,
        "overrides": overrides or None,
        "save_fp_weights": said.save_fp_weights,
    }
    try:
        return PostTrainLinearQuantizer("--qe", **arguments)
    except ConfigError as error:
        faults = [fault for fault in error.faults if isinstance(fault, Fault)]
        told = [Fault(_option(fault.where), fault.rule, fault.value, fault.way_out) for fault in faults]
        raise ConfigError(*told) from error


def _exactly(layer: str) -> str:
    """A layer's name as the pattern of an override."""
    return layer.replace(".", r"\.")


def _mode(value: str, option: str) -> str:
    if value not in MODES:
        raise ConfigError(Fault(option, f"must be one of {', '.join(MODES)}", value, close_match(value, MODES)))
    return MODES[value]


def _option(argument: str) -> str:
    """The option that an argument of the quantizer comes from."""
    names = {
        "bits_activations": "bits-acts",
        "bits_weights": "bits-wts",
        "bits_parameters": "bits-wts",
        "scale_approx_mult_bits": "scale-approx-bits",
        "per_channel_wts": "per-channel",
        "model_activation_stats": "stats-file",
    }
    return f"--qe-{names.get(argument, argument.replace('_', '-'))}"


def _search(said: PostTraining) -> Options:
    from raydistill.analysis.quantized import Options

    init = said.lapq_init_mode.upper()
    if init not in (*_INITS, *_CLIPS):
        known = ", ".join((*_INITS, *_CLIPS))
        raise ConfigError(Fault("--lapq-init-mode", f"must be one of {known}", said.lapq_init_mode))
    for option, value in (("--lapq-maxiter", said.lapq_maxiter), ("--lapq-maxfev", said.lapq_maxfev)):
        if value is not None and value < 1:
            raise ConfigError(Fault(option, "must be at least 1", value))
    return Options(
        _INITS.get(init, "NONE"),
        said.lapq_method,
        said.lapq_maxiter,
        said.lapq_maxfev,
        said.lapq_search_clipping,
        said.lapq_basinhopping_niter if said.lapq_basinhopping else 0,
        _share(said.lapq_eval_size, "--lapq-eval-size"),
    )


def _share(value: float | None, option: str) -> float | None:
    if value is not None and not 0.0 < value <= 1.0:
        rule = "must be a part of the training data, above 0 and up to 1"
        raise ConfigError(Fault(option, rule, value, "such as 0.05"))
    return value


class _Told:
    """The steps of a search for bits: a line each. of_floats: the metric of the float network."""

    def __init__(self, console: Console, name: str, metric: Metric, of_floats: float) -> None:
        self._console, self.name, self._metric, self.of_floats = console, name, metric, of_floats
        self.steps = 0

    def cost(self, value: float) -> float:
        """What is to be lowered."""
        return -value if self._metric.maximise else value

    def step(self, step: Step) -> None:
        from raydistill.metrics import shown

        self.steps += 1
        value = shown(self._metric, self.cost(step.cost))
        size = f"{step.size_bits / 8:,.0f} bytes of weights"
        self._console.print(
            f"  {step.layer}: {step.bits[step.layer]} bits, {size}, {self.name} {value}", soft_wrap=True
        )


def _bit_choices(said: PostTraining) -> tuple[int, ...]:
    from raydistill.compression.bit_sensitivity import checked_steps

    if said.bit_search is None:
        return ()
    if said.lapq:
        rule = "cannot stand beside --qe-bit-search: it fixes the ranges of weights"
        raise ConfigError(Fault("--qe-lapq", rule, ABSENT, "keep one of the two"))
    if not 0.0 <= said.bit_search_drop < math.inf:
        raise ConfigError(Fault("--qe-bit-search-drop", "must be at least 0", said.bit_search_drop, "such as 0.01"))
    try:
        choices = checked_steps(said.bit_search)
    except ConfigError as error:
        faults = [fault for fault in error.faults if isinstance(fault, Fault)]
        raise ConfigError(*(replace(fault, where="--qe-bit-search") for fault in faults)) from error
    if len(choices) < 2:
        rule = "must name two numbers of bits or more"
        raise ConfigError(Fault("--qe-bit-search", rule, said.bit_search, "as in 8,6,4"))
    return choices


def _check_gptq(said: PostTraining) -> None:
    if not said.gptq:
        return
    if said.adaround:
        raise ConfigError(Fault("--qe-adaround", "cannot stand beside --qe-gptq", ABSENT, "keep one of the two"))
    if not 0.0 < said.gptq_damping <= 1.0:
        rule = "must be above 0 and up to 1"
        raise ConfigError(Fault("--qe-gptq-damping", rule, said.gptq_damping, "such as 0.01"))
    if not said.bits_wts and said.config_file is None:
        raise ConfigError(Fault("--qe-gptq", "rounds weights, which --qe-bits-wts 0 leaves as floats", ABSENT))


def quantize(
    checkpoint: Path, config: RunConfig, task: Task, folder: Path, said: PostTraining, console: Console
) -> None:
    """Calibrate (into a file), quantize, judge and write the quantized checkpoint, as far as it is asked for."""
    from raydistill.analysis import quantized
    from raydistill.analysis.fewer_bits import Asked
    from raydistill.analysis.network import read_network
    from raydistill.cli.lines import warn
    from raydistill.cli.tables import first_in_words, in_words
    from raydistill.compression.quantizers.statistics import write_statistics
    from raydistill.metrics import selecting
    from raydistill.tasks import TEST, VALIDATION, Loading
    from raydistill.training import device_of

    share = _share(said.calibration, "--qe-calibration")
    if said.adaround < 0:
        raise ConfigError(Fault("--qe-adaround", "must be at least 0", said.adaround, "such as 1000"))
    _check_gptq(said)
    choices = _bit_choices(said)
    quantizer, search = quantizer_of(said)
    network = read_network(checkpoint, config.arch)
    task = network.task(task, config.dataset)
    loading = Loading(device_of(config.device), config.batch_size, config.seed, fraction=share or quantized.SHARE)
    if said.calibration is not None:
        known = quantized.calibration_of(network, task, loading)
        write_statistics(folder / STATISTICS, known)
        console.print(f"statistics of {len(known)} layers: {folder / STATISTICS}", soft_wrap=True)
    if not said.quantize_eval:
        return
    judged = Loading(loading.device, config.batch_size, fraction=config.effective_valid_size)
    feed = task.feed(VALIDATION, judged)
    before = task.evaluate(network.model.to(loading.device), feed, judged)
    idle = quantizer.idle_overrides(network.model, network.example_input(2))
    if idle:
        raise ConfigError(*idle)
    damping = said.gptq_damping if said.gptq else None
    steps = quantized.Steps(said.equalize, said.adaround, said.bias_correction, damping)
    asked = None
    if choices:
        name = selecting(task.metrics)
        lines = _Told(console, name, task.metrics[name], before[name])
        about = {"task": task.fingerprint(), "samples": feed.samples, "metric": lines.name}
        asked = Asked(
            choices,
            lambda: lines.cost(task.evaluate(network.model, feed, judged)[lines.name]),
            lines.cost(lines.of_floats) + said.bit_search_drop,
            folder / BIT_SEARCH,
            about,
            lines.step,
        )
    report, found = quantized.quantize(network, task, loading, quantizer, said.dynamic, search, steps, asked)
    if asked is not None and not lines.steps:
        warn(console, f"no weight can go below {max(choices)} bits for a drop of {said.bit_search_drop:g}")
    for note in report.notes:
        warn(console, note)
    ways = "anew for each batch" if report.statistics is None else "from statistics"
    rounded = len({point.key for point in report.quantization.points if point.argument == -1})
    console.print(f"quantized: {len(report.plan.weights)} weights, {rounded} activations, ranges {ways}")
    if found is not None:
        told = ", ".join(f"{step} {loss:.4f}" for step, loss in found.losses.items())
        console.print(f"clipping values by the training loss: {told} ({found.evaluations} evaluations)", soft_wrap=True)
    after = task.evaluate(network.model, feed, judged)
    console.print(
        f"{task.name}, {feed.samples:,} validation samples: float {first_in_words(before, task.metrics)}, "
        f"quantized {in_words(after, task.metrics)}",
        soft_wrap=True,
    )
    tested = Loading(loading.device, config.batch_size, fraction=config.effective_test_size)
    feed = task.feed(TEST, tested)
    figures = task.evaluate(network.model, feed, tested)
    console.print(f"{task.name}, {feed.samples:,} test samples: {in_words(figures, task.metrics)}", soft_wrap=True)
    quantized.write_quantized(network, report, folder / CHECKPOINT)
    console.print(f"quantized checkpoint: {folder / CHECKPOINT}", soft_wrap=True)
