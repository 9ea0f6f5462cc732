"""``raydistill check``: what a schedule would do, what is wrong with it, and whether it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended
from tests.compression.compat_schedules import ARCHITECTURES

Command = Callable[..., Ended]
ROOT = Path(__file__).parents[2]
OF_IMAGENET = ("alexnet", "alexnet_bn", "mobilenet", "preact_resnet18", "resnet50", "resnext101_32x4d")
SCHEDULE = """
version: 1
pruners:
  agp: {class: AutomatedGradualPruner, initial_sparsity: 0.1, final_sparsity: 0.5, weights: [fc1.weight, fc9.weight]}
policies:
  - {pruner: {instance_name: agp}, starting_epoch: 2, ending_epoch: 6, frequency: 1}
"""


def test_no_file_of_theirs_is_left_out(compat: Path) -> None:
    folder = compat / "distiller_schedules"
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.yaml")} == set(ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize("file", ARCHITECTURES)
def test_schedules_of_distillers_users_run_unchanged(raydistill: Command, compat: Path, file: str) -> None:
    path = compat / "distiller_schedules" / file
    large = ARCHITECTURES[file] in OF_IMAGENET
    size = ("--input-shape", "3,64,64") if large else ()  # a tenth of the time, and the same layers
    ended = raydistill("check", path, "--arch", ARCHITECTURES[file], "--run", "--strict", *size)
    assert (ended.code, ended.err) == (0, "")
    assert "ran on random data: epochs " in ended.out
    assert ended.out.splitlines()[-1].partition("; without use: ")[0].endswith(f"fits {ARCHITECTURES[file]}")
    assert max(len(line) for line in ended.out.splitlines() if "random data" not in line and "fits" not in line) <= 80


@pytest.mark.slow
def test_a_weight_that_is_not_there_is_a_warning_or_with_strict_an_error(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCHEDULE)
    said = f"{file}: pruners.agp.weights: the model has no such weight, got 'fc9.weight'; did you mean 'fc3.weight'?\n"
    ended = raydistill("check", file, "--arch", "simplenet_cifar", "--run")
    assert (ended.code, ended.err) == (0, f"warning: {said}")
    assert "fits simplenet_cifar, 1 warnings" in ended.out
    assert "ran on random data: epochs 2 (7.8% sparse after it), 4 " in ended.out
    strict = raydistill("check", file, "--arch", "simplenet_cifar", "--strict")
    assert (strict.code, strict.out, strict.err) == (2, "", f"error: {said}")


@pytest.mark.slow
def test_pruners_that_prune_nothing_are_told(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCHEDULE.replace("fc1.weight, fc9.weight", "fc8.weight, fc9.weight"))
    ended = raydistill("check", file, "--arch", "simplenet_cifar")
    assert ended.code == 2
    assert "fits" not in ended.out
    assert ended.err.splitlines()[-1] == (
        f"error: {file}: does not fit simplenet_cifar: it prunes nothing, agp acts on no weight; "
        "raydistill summary sparsity --arch simplenet_cifar lists its weights"
    )
    other = "  other: {class: SparsityLevelParameterPruner, levels: {fc1.weight: 0.5}}\npolicies:"
    file.write_text(SCHEDULE.replace("policies:", other))
    assert (
        raydistill("check", file, "--arch", "simplenet_cifar")
        .out.rstrip()
        .endswith("fits simplenet_cifar, 1 warnings; without use: other is in no policy")
    )


@pytest.mark.slow
def test_a_sweep_file_is_named_as_that(raydistill: Command, tmp_path: Path) -> None:
    file = ROOT / "search_spaces" / "simplenet.yaml"
    ended = raydistill("check", file, "--arch", "simplenet_cifar")
    assert (ended.code, ended.out, ended.err.count("\n")) == (2, "", 1)
    assert ended.err.startswith(f"error: {file}: is a sweep file (it has 'search'), and a schedule is wanted here; ")
    assert f"raydistill sweep {file} --dry-run checks it" in ended.err


@pytest.mark.slow
def test_it_says_epoch_by_epoch_what_happens(raydistill: Command) -> None:
    ended = raydistill("check", ROOT / "schedules" / "simplenet_agp.yaml", "--arch", "simplenet_cifar")
    lines = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "1 conv1_pruner: 1 weight to 15.0% 15.00" in lines
    assert lines[-2] == "... and 60 more: --all shows them"
    whole = raydistill("check", ROOT / "schedules" / "simplenet_agp.yaml", "--arch", "simplenet_cifar", "--all")
    last = [" ".join(line.split()) for line in whole.out.splitlines()]
    assert "99 conv1_pruner: 1 weight to 30.0% 78.47" in last
    assert "more" not in whole.out


@pytest.mark.slow
def test_it_lists_the_weights_that_each_entry_takes(raydistill: Command) -> None:
    file = ROOT / "schedules" / "resnet18_targets.yaml"
    ended = raydistill("check", file, "--arch", "resnet18", "--input-shape", "3x64x64")
    assert (ended.code, ended.err) == (0, "")
    rows = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert "pruners.filters 8 layer1.0.conv1.weight" in rows
    assert "pruners.fine 8 layer1.0.conv2.weight" in rows
    assert "regularizers.scales 20 bn1.weight" in rows
    assert "quantizers.integers 19 layer1.0.conv1.weight" in rows
    assert "... and 14 more" in rows
    whole = raydistill("check", file, "--arch", "resnet18", "--input-shape", "3x64x64", "--all")
    assert "more" not in whole.out
    assert whole.out.count(" layer4.1.conv1.weight ") == 3  # filters, thinner, integers


@pytest.mark.slow
def test_every_fault_is_a_line(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(SCHEDULE.replace("0.5", "0.05"))
    ended = raydistill("check", file, "--arch", "simplenet_cifar")
    assert (ended.code, ended.out) == (2, "")
    assert "final_sparsity: must not be below initial_sparsity 0.1, got 0.05" in ended.err
    assert raydistill("check", file, "--arch", "simplenet_cifr").err.startswith("error: --arch: unknown model")
    assert (
        "--input-shape: must be whole numbers"
        in raydistill("check", file, "-a", "simplenet_cifar", "--input-shape", "3xa").err
    )
    shape = raydistill("check", file, "-a", "simplenet_cifar", "--input-shape", "3,8,8")
    assert "--arch: 'simplenet_cifar' does not take inputs of shape (2, 3, 8, 8)" in shape.err
    assert "no such file" in raydistill("check", tmp_path / "none.yaml", "--arch", "simplenet_cifar").err


@pytest.mark.parametrize(
    ("quantizers", "policies", "says"),
    [
        (
            "q: {class: DorefaQuantizer, bits_weights: 33}",
            "[]",
            "quantizers.q.bits_weights: must be a whole number from 1 to 32, or null to leave floats, got 33",
        ),
        (
            "q: {class: QuantAwareTrainRangeLinearQuantizer}",
            "[{quantizer: {instance_name: q}, epochs: [0]}]",
            "quantizers.q.bits_weights: nothing would be quantized",
        ),
        ("q: {class: PostTrianLinearQuantizer}", "[]", "quantizers.q.class: unknown quantizer class"),
        (
            "q: {class: WRPNQuantizr}",
            "[{quantizer: {instance_name: q}, epochs: [0]}]",
            "unknown quantizer class, got 'WRPNQuantizr'; did you mean 'WRPNQuantizer'?",
        ),
        (
            "q: {class: WRPNQuantizer}",
            "[{quantizer: {instance_name: q}, epochs: [0]}, {pruner: {instance_name: p}, epochs: [0]}]",
            "pruners.p.final_sparsty: unknown argument; did you mean 'final_sparsity'?",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "compress"])
def test_a_schedule_with_a_quantizer_that_is_wrong_is_checked_whole(
    raydistill: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    quantizers: str,
    policies: str,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    pruners = "p: {class: AutomatedGradualPruner, initial_sparsity: 0, final_sparsty: 0.5, weights: [conv1.weight]}"
    pruners = pruners if "pruner:" in policies else ""
    Path("q.yaml").write_text(
        f"version: 1\npruners: {{{pruners}}}\nquantizers: {{{quantizers}}}\npolicies: {policies}\n"
    )
    file = ["q.yaml"] if command == "check" else ["--compress", "q.yaml", "--dataset", "digits", "--epochs", "1"]
    ended = raydistill(command, *file, "--arch", "simplenet_cifar")
    assert ended.code == 2
    assert says in ended.err
    assert "fits" not in ended.out
    assert not Path("runs").exists()


TWICE = """
pruners:
  p: {class: AutomatedGradualPruner, initial_sparsity: 0, final_sparsity: 0.5, weights: [conv1.weight]}
  p: {class: AutomatedGradualPruner, initial_sparsity: 0, final_sparsity: 0.7, weights: [conv1.weight]}
policies:
  - {pruner: {instance_name: p}, starting_epoch: 0, ending_epoch: 1, frequency: 1}
"""


def test_a_key_given_twice_is_a_warning_and_with_strict_an_error(raydistill: Command, tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    path.write_text(TWICE)
    ended = raydistill("check", path, "--arch", "simplenet_cifar")
    assert ended.code == 0
    assert "'p' is given twice, in lines 3 and 4: the last counts" in ended.err
    assert "70.0%" in ended.out
    strict = raydistill("check", path, "--arch", "simplenet_cifar", "--strict")
    assert strict.code == 2
    assert "key 'p' is given twice" in strict.err


@pytest.mark.parametrize("shape", ["3x32x32", "3,32,32", "3 X 32 X 32".replace(" ", "")])
@pytest.mark.parametrize("command", ["check", "summary"])
def test_shapes_are_written_one_way_or_the_other(raydistill: Command, tmp_path: Path, command: str, shape: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text("version: 1\npolicies: []\n")
    first = [path] if command == "check" else ["compute"]
    assert raydistill(command, *first, "--arch", "simplenet_cifar", "--input-shape", shape).code == 0


@pytest.mark.slow
def test_a_schedule_that_rounds_at_its_end_is_tried_with_that(raydistill: Command, tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    rounds = "quantizers:\n  ints: {class: PostTrainLinearQuantizer}\npolicies:\n"
    use = "\n  - {quantizer: {instance_name: ints}, epochs: [9]}"
    file.write_text(SCHEDULE.replace("fc9", "fc2").replace("policies:\n", rounds).rstrip() + use)
    ended = raydistill("check", file, "--arch", "simplenet_cifar", "--run")
    assert (ended.code, ended.err) == (0, "")
    assert "ints: rounds the trained" in ended.out
    assert ", 9 (" in ended.out
