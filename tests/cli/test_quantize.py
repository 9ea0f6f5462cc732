"""``raydistill compress --quantize-eval`` and its options."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from raydistill.cli.quantize import quantizer_of
from raydistill.compression.quantizers.grid import Mode
from raydistill.compression.quantizers.network import quantization_of
from raydistill.compression.quantizers.ranges import Clip
from raydistill.errors import ConfigError
from raydistill.parts import PostTraining
from raydistill.training import load_model, read_checkpoint
from tests.cli.conftest import Ended

Command = Callable[..., Ended]


@pytest.fixture
def look(raydistill: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: Path) -> Command:
    monkeypatch.chdir(tmp_path)
    common = ("--arch", "simplenet_cifar", "--dataset", "digits", "--name", "look", "--no-mlflow", "--cpu")

    def command(*arguments: object, checkpoint: Path = trained) -> Ended:
        return raydistill("compress", *common, "--resume-from", checkpoint, *arguments)

    return command


def figure(ended: Ended, before: str) -> float:
    """The percentage that stands behind this text."""
    return float(ended.out.split(before)[1].split("top1 ")[1].split()[0])


@pytest.mark.slow
def test_calibration_alone_writes_statistics_and_they_quantize(look: Command, tmp_path: Path) -> None:
    ended = look("--qe-calibration", "0.2")
    assert ended.code == 0, ended.err
    path = tmp_path / "runs" / "look" / "acts_quantization_stats.yaml"
    content = yaml.safe_load(path.read_text())
    assert set(content["conv1"]) == {"inputs", "output"}
    assert content["conv1"]["output"]["std"] > 0
    assert "quantized" not in ended.out.replace("acts_quantization", "")
    ended = look("--evaluate", "--quantize-eval", "--qe-stats-file", path)
    assert ended.code == 0, ended.err
    assert "from statistics" in ended.out
    assert figure(ended, "float") == pytest.approx(figure(ended, ", quantized"), abs=3.0)


@pytest.mark.slow
def test_eight_bits_hardly_change_the_answers_and_two_bits_do(look: Command) -> None:
    ended = look("--quantize-eval", "--qe-per-channel", "--qe-mode", "asym_u")
    assert ended.code == 0, ended.err
    floats, eight = figure(ended, "float"), figure(ended, ", quantized")
    assert floats > 50
    assert abs(floats - eight) < 2.0
    assert "test samples: top1" in ended.out
    ended = look("--quantize-eval", "--qe-bits-wts", "2", "--qe-bits-acts", "2")
    assert figure(ended, ", quantized") < eight - 10


@pytest.mark.slow
def test_the_quantized_checkpoint_is_evaluated_as_it_was(look: Command, tmp_path: Path) -> None:
    ended = look("--quantize-eval", "--qe-clip-acts", "avg", "--qe-no-clip-layers", "fc3")
    assert ended.code == 0, ended.err
    path = tmp_path / "runs" / "look" / "quantized.pt"
    assert len(read_checkpoint(path)["structure"]) == 1  # it has no batch norms
    again = look("--evaluate", checkpoint=path)
    assert again.code == 0, again.err
    assert figure(again, "test samples: ") == figure(ended, "test samples: ")
    twice = look("--quantize-eval", checkpoint=path)
    assert (twice.code, "is quantized already" in twice.err) == (2, True)


@pytest.mark.slow
def test_dynamic_quantization_needs_no_data_to_calibrate(look: Command) -> None:
    ended = look("--quantize-eval", "--qe-dynamic")
    assert ended.code == 0, ended.err
    assert "ranges anew for each batch" in ended.out


@pytest.mark.slow
def test_a_config_file_says_it_in_place_of_the_options(look: Command, tmp_path: Path) -> None:
    said = {"class": "PostTrainLinearQuantizer", "bits_activations": 8, "overrides": {"conv1": {"bits_weights": 4}}}
    (tmp_path / "q.yaml").write_text(yaml.dump({"quantizers": {"post_train_quantizer": said}}))
    ended = look("--quantize-eval", "--qe-config-file", tmp_path / "q.yaml")
    assert ended.code == 0, ended.err
    plan = str(read_checkpoint(tmp_path / "runs" / "look" / "quantized.pt")["structure"])
    assert "'conv1.weight': {'kind': 'linear', 'args': {'bits': 4" in plan
    for wrong, text in (
        ({"quantizers": {"q": {"class": "DorefaQuantizer"}}}, "must name one PostTrainLinearQuantizer"),
        ({"quantizers": {"q": {**said, "bits_acts": 3}}}, "quantizers.q.bits_acts: unknown argument"),
        ({"quantizers": {"q": {**said, "mode": "SYM"}}}, "quantizers.q.mode: must be one of"),
        ({"quantizers": {"q": {**said, "overrides": {"conv9": {}}}}}, "overrides.conv9: matches no layer"),
        ({}, "must name one PostTrainLinearQuantizer"),
    ):
        (tmp_path / "q.yaml").write_text(yaml.dump(wrong))
        ended = look("--quantize-eval", "--qe-config-file", tmp_path / "q.yaml")
        assert ended.code == 2
        assert text in " ".join(ended.err.split())
        assert "Traceback" not in ended.err


@pytest.mark.slow
def test_clipping_values_are_searched_by_the_loss(look: Command) -> None:
    ended = look("--quantize-eval", "--qe-bits-wts", "3", "--qe-bits-acts", "4", "--qe-lapq", "--lapq-init-mode", "L2",
                 "--lapq-maxiter", "1", "--lapq-maxfev", "30", "--lapq-eval-size", "0.1")  # fmt: skip
    assert ended.code == 0, ended.err
    told = ended.out.split("clipping values by the training loss: ")[1]
    losses = [float(told.split(step)[1].split()[0].rstrip(",")) for step in ("before", "itself", "together")]
    assert losses[2] <= min(losses[:2])


@pytest.mark.slow
def test_rounding_that_is_learned_and_equal_channels_help_with_few_bits(look: Command, tmp_path: Path) -> None:
    common = ("--quantize-eval", "--qe-bits-wts", "3", "--qe-calibration", "0.5")
    plain = look(*common)
    helped = look(*common, "--qe-adaround", "100", "--qe-equalize")
    assert helped.code == 0, helped.err
    loss = [float(ended.out.split(", quantized")[1].split("loss ")[1].split()[0]) for ended in (plain, helped)]
    assert loss[1] < loss[0]
    again = look("--evaluate", checkpoint=tmp_path / "runs" / "look" / "quantized.pt")
    assert figure(again, "test samples: ") == figure(helped, "test samples: ")


@pytest.mark.slow
def test_bits_are_searched_on_validation_kept_and_not_measured_twice(
    look: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raydistill.analysis import fewer_bits

    measured: list[dict[str, int]] = []
    of = fewer_bits._Costs.of

    def counting(self: Any, bits: dict[str, int], measure: Callable[[], float]) -> float:
        return of(self, bits, lambda: measured.append(dict(bits)) or measure())  # type: ignore[func-returns-value]

    monkeypatch.setattr(fewer_bits._Costs, "of", counting)
    command = ("--quantize-eval", "--qe-bits-acts", "0", "--qe-bit-search", "8,2", "--qe-bit-search-drop", "0.01")
    ended = look(*command)
    assert ended.code == 0, ended.err
    path = tmp_path / "runs" / "look" / "quantized.pt"
    (change,) = read_checkpoint(path)["structure"]
    found = {name: said["args"]["bits"] for name, said in change["weights"].items()}
    assert set(found.values()) == {8, 2}  # two bits are too few for some, not for all
    assert figure(ended, ", quantized") >= figure(ended, "float") - 1.0 - 0.01  # of what is printed
    lines = [line for line in ended.out.splitlines() if " bytes of weights, top1 " in line]
    assert len(lines) == sum(bits == 2 for bits in found.values())
    first = len(measured)
    assert first > len(lines)
    again = look(*command)
    assert len(measured) == first
    assert again.out == ended.out
    assert read_checkpoint(path)["structure"] == [change]
    look(*command, "--qe-per-channel")  # another network
    assert len(measured) > first


@pytest.mark.slow
def test_weights_alone_in_groups_and_what_they_weigh(
    look: Command, raydistill: Command, tmp_path: Path, trained: Path
) -> None:
    common = ("--quantize-eval", "--qe-bits-acts", "0", "--qe-calibration", "0.2")
    floats = load_model(trained).get_parameter("fc1.weight").detach()
    off, sizes, graphs = {}, {}, {}
    for bits, group in ((8, 32), (4, 32), (4, None)):
        ended = look(*common, "--qe-bits-wts", bits, *(("--qe-group-size", group) if group else ()))
        assert ended.code == 0, ended.err
        held = quantization_of(load_model(tmp_path / "runs" / "look" / "quantized.pt"))
        assert held is not None
        with torch.no_grad():
            off[bits, group] = float((held.weight("fc1.weight")(floats) - floats).square().mean())
        net = f"net-{bits}-{group}"
        exported = raydistill(
            "export",
            tmp_path / "runs" / "look" / "quantized.pt",
            "-o",
            net,
            "--format",
            "safetensors,onnx",
            "--no-latency",
        )
        assert exported.code == 0, exported.err
        sizes[bits, group] = (tmp_path / net / "model.safetensors").stat().st_size
        graphs[bits, group] = (tmp_path / net / "model.onnx").stat().st_size
    assert 0 < off[8, 32] < off[4, 32] < 0.8 * off[4, None]  # a range for 32 inputs is narrower than one for all
    assert sizes[4, None] < sizes[4, 32] < 0.75 * sizes[8, 32]
    assert graphs[4, None] < graphs[4, 32] < 0.75 * graphs[8, 32]  # two numbers a byte, and scales of groups


@pytest.mark.slow
def test_weights_alone_whose_others_make_good_what_rounding_adds(look: Command, tmp_path: Path) -> None:
    common = (
        "--quantize-eval",
        "--qe-bits-acts",
        "0",
        "--qe-bits-wts",
        "3",
        "--qe-per-channel",
        "--qe-calibration",
        "0.5",
    )
    plain, helped = look(*common), look(*common, "--qe-gptq")
    assert helped.code == 0, helped.err
    assert "quantized: 5 weights, 0 activations" in helped.out
    loss = [float(ended.out.split(", quantized")[1].split("loss ")[1].split()[0]) for ended in (plain, helped)]
    assert loss[1] < loss[0]
    again = look("--evaluate", checkpoint=tmp_path / "runs" / "look" / "quantized.pt")
    assert figure(again, "test samples: ") == figure(helped, "test samples: ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--quantize-eval", "--qe-group-size", "64"), "--qe-group-size: is for weights alone: sums of several scales"),
        (("--quantize-eval", "--qe-group-size", "0", "--qe-bits-acts", "0"), "--qe-group-size: must be a whole number"),
        (("--quantize-eval", "--qe-group-size", "8", "--qe-lapq"), "--qe-lapq: cannot stand beside --qe-group-size"),
        (("--quantize-eval", "--qe-bit-search", "8"), "--qe-bit-search: must name two numbers of bits or more"),
        (("--quantize-eval", "--qe-bit-search", "8,1"), "--qe-bit-search: must be whole numbers from 2 to 16"),
        (("--quantize-eval", "--qe-bit-search", "8,4", "--qe-lapq"), "--qe-lapq: cannot stand beside --qe-bit-search"),
        (("--quantize-eval", "--qe-bit-search", "8,4", "--qe-bit-search-drop", "-1"), "--qe-bit-search-drop: must be"),
        (("--quantize-eval", "--qe-bit-search", "8,4", "--qe-bits-wts", "0"), "--qe-bit-search: no weight is rounded"),
        (("--quantize-eval", "--qe-gptq", "--qe-adaround", "9"), "--qe-adaround: cannot stand beside --qe-gptq"),
        (("--quantize-eval", "--qe-gptq", "--qe-gptq-damping", "0"), "--qe-gptq-damping: must be above 0 and up to 1"),
        (("--quantize-eval", "--qe-gptq", "--qe-bits-wts", "0"), "--qe-gptq: rounds weights, which --qe-bits-wts 0"),
        (("--quantize-eval", "--qe-mode", "symm"), "--qe-mode: must be one of sym, sym_restr, asym_s, asym_u"),
        (("--quantize-eval", "--qe-bits-wts", "33"), "--qe-bits-wts: must be a whole number from 2 to 32"),
        (("--quantize-eval", "--qe-bits-acts", "1"), "--qe-bits-acts: must be a whole number from 2 to 32"),
        (("--quantize-eval", "--qe-clip-acts", "mean"), "--qe-clip-acts: must be one of NONE"),
        (("--quantize-eval", "--qe-clip-acts", "n_std"), "--qe-clip-n-stds: must say how many"),
        (
            ("--quantize-eval", "--qe-dynamic", "--qe-calibration", "0.1"),
            "--qe-calibration: cannot stand beside --qe-dyna",
        ),
        (("--quantize-eval", "--qe-stats-file", "no.yaml"), "no.yaml: no such file"),
        (("--quantize-eval", "--qe-no-quant-layers", "conv7"), "matches no layer and no call"),
        (("--quantize-eval", "--qe-dynamic", "--qe-lapq"), "--qe-lapq: searches ranges"),
        (("--quantize-eval", "--qe-lapq", "--lapq-init-mode", "L9"), "--lapq-init-mode: must be one of"),
        (("--quantize-eval", "--qe-lapq", "--lapq-method", "Newton"), "must be one of Powell"),
        (("--quantize-eval", "--qe-lapq", "--lapq-maxiter", "0"), "--lapq-maxiter: must be at least 1"),
        (("--quantize-eval", "--qe-adaround", "-1"), "--qe-adaround: must be at least 0"),
        (("--qe-calibration", "1.5"), "--qe-calibration: must be a part of the training data"),
        (("--qe-lapq",), "--quantize-eval: is missing"),
    ],
)
def test_what_cannot_be_is_one_line(look: Command, arguments: tuple[str, ...], text: str) -> None:
    ended = look(*arguments)
    assert ended.code == 2
    assert text in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_without_a_checkpoint_there_is_nothing_to_quantize(raydistill: Command) -> None:
    for option in (("--quantize-eval",), ("--qe-calibration", "0.1")):
        ended = raydistill("compress", "--arch", "simplenet_cifar", "--dataset", "digits", *option)
        assert (ended.code, f"{option[0]}: needs a checkpoint" in ended.err) == (2, True)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ({"mode": "sym"}, {"per_channel": False, "clip": Clip.NONE}),
        ({"mode": "sym", "per_channel": True}, {"per_channel": True}),
        ({"mode": "sym", "per_channel": True, "clip_acts": "avg"}, {"clip": Clip.AVG}),
        ({"mode": "asym_u", "per_channel": True, "clip_acts": "avg", "no_clip_layers": ("fc",)}, {"fc": Clip.NONE}),
        ({"bits_acts": 6, "bits_wts": 6, "mode": "asym_u"}, {"bits": (6, 6)}),
        ({"bits_acts": 0}, {"bits": (None, 8)}),
        (
            {"mode_wts": "sym_restr", "mode_acts": "asym_u"},
            {"modes": (Mode.SYMMETRIC_RESTRICTED, Mode.ASYMMETRIC_UNSIGNED)},
        ),
    ],
)
def test_distillers_documented_command_lines(line: dict[str, Any], expected: dict[str, Any]) -> None:
    quantizer, search = quantizer_of(PostTraining(quantize_eval=True, **line))
    said, fc = quantizer.settings("layer1.0.conv1"), quantizer.settings("fc")
    found = {
        "per_channel": said.per_channel,
        "clip": said.output.clip,
        "fc": fc.output.clip,
        "bits": (said.output.bits, said.bits_weights),
        "modes": (said.weights_mode, said.output.mode),
    }
    assert {key: found[key] for key in expected} == expected
    assert search is None


def test_a_layer_is_named_exactly(tmp_path: Path) -> None:
    quantizer, _ = quantizer_of(PostTraining(no_quant_layers=("a.b",)))
    assert quantizer.settings("a.b").output.bits is None
    assert quantizer.settings("axb").output.bits == 8
    with pytest.raises(ConfigError):
        quantizer_of(PostTraining(bits_accum=2))


@pytest.mark.slow
def test_statistics_of_another_network_are_said(look: Command, tmp_path: Path) -> None:
    record = {"min": 0.0, "max": 1.0, "avg_min": 0.0, "avg_max": 1.0, "mean": 0.5, "std": 0.1, "b": 0.1}
    (tmp_path / "s.yaml").write_text(yaml.dump({"layer1.conv": {"output": record}}))
    ended = look("--quantize-eval", "--qe-stats-file", tmp_path / "s.yaml")
    assert ended.code == 2
    assert "hold none of this network's layers" in " ".join(ended.err.split())
