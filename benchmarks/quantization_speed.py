"""What quantization costs in time, and what it saves: pairs in one run.

    python benchmarks/quantization_speed.py [step] [calibration] [latency] [--networks resnet20_cifar ...]

step: a training step of resnet20_cifar with each quantizer against the same step with floats (1.6 times is allowed).
calibration: quantizing resnet50 after training with 512 images of 224 x 224 (three minutes are allowed).
latency: the files that are delivered of the quantized network against the floats: ONNX in onnxruntime, and, where
torchao is installed, torch.compile. Weights are random there, and how far outputs lie apart is told.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.post_training import PostTrained, calibrate, post_train
from raydistill.compression.quantizers import MENU
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.compression.structure import Change, Quantized, structure_state
from raydistill.compression.thinning.verify import difference
from raydistill.export import Deployed, asked_for, deployed, load, write_artifact
from raydistill.export.formats.packages import has
from raydistill.export.outputs import parts
from raydistill.training.checkpoint import write_checkpoint

STEPS: Mapping[str, Mapping[str, Any]] = {
    "QuantAwareTrainRangeLinearQuantizer": {"bits_weights": 8, "bits_activations": 8, "per_channel_wts": True},
    "DorefaQuantizer": {"bits_weights": 3, "bits_activations": 8},
    "WRPNQuantizer": {"bits_weights": 4, "bits_activations": 4},
    "LSQQuantizer": {"bits_weights": 4, "bits_activations": 4},
    "PACTQuantizer": {"bits_weights": 4, "bits_activations": 4},
}
NETWORKS = ("resnet20_cifar", "resnet50", "mobilenet_v2", "vit_b_16")
ENDS = {"onnx": ".onnx", "pt2e": ".pt2"}
FOR_SPEED = {"weights": "SYMMETRIC", "activations": "ASYMMETRIC_UNSIGNED"}


def side_by_side(passes: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each, in turns."""
    times: list[list[float]] = [[] for _ in passes]
    for round_ in range(rounds + 2):
        for found, run in zip(times, passes, strict=True):
            begun = time.perf_counter()
            run()
            if round_ >= 2:
                found.append(time.perf_counter() - begun)
    return [statistics.median(found) for found in times]


def step_of(model: nn.Module, images: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.logsumexp(model(images), 1).mean().backward()
        optimizer.step()

    return step


def steps() -> None:
    print("a training step of resnet20_cifar, 128 images")
    images = torch.randn(128, 3, 32, 32)
    for name, arguments in STEPS.items():
        floats = models.create("resnet20_cifar", 10)
        rounded = copy.deepcopy(floats)
        MENU[name]("q", **arguments).plan(rounded, (images[:2],)).carry_out(rounded)
        one, other = side_by_side((step_of(floats, images), step_of(rounded, images)), 8)
        print(f"  {name:38} {1000 * one:7.0f} ms  {1000 * other:7.0f} ms  {other / one:5.2f} times", flush=True)


def random_network(arch: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    torch.manual_seed(0)
    model = models.create(arch, 10 if "cifar" in arch else 1000).eval()
    example = models.example_input(arch, batch=2)
    if arch.startswith("vit"):
        nn.init.normal_(model.get_parameter("heads.head.weight"), std=0.02)  # zero as it is made, as is the next
        nn.init.normal_(model.get_parameter("class_token"))  # else far smaller than the step of the sum it is in
    return model, example


def quantized(model: nn.Module, example: tuple[Tensor, ...], images: Sequence[Tensor]) -> tuple[nn.Module, PostTrained]:
    quantizer = PostTrainLinearQuantizer("q", per_channel_wts=True, mode=FOR_SPEED)
    with torch.no_grad():
        found = calibrate(model, example, lambda: iter([(batch,) for batch in images]), quantizer)
        return model, post_train(model, quantizer, example, found)


def calibration() -> None:
    model, example = random_network("resnet50")
    images = [torch.randn(32, *example[0].shape[1:]) for _ in range(16)]
    begun = time.perf_counter()
    quantized(model, example, images)
    print(f"quantizing resnet50 after training with 512 images: {time.perf_counter() - begun:.0f} s")


def kept(model: nn.Module, arch: str, folder: Path, *changes: Change) -> Deployed:
    """What is delivered of it, by way of a checkpoint. changes: what made the model of a new one."""
    classes = 10 if "cifar" in arch else 1000
    image = [*models.example_input(arch)[0].shape[1:]]
    described = {"run": {"arch": arch, "model_args": {}}, "num_classes": classes, "image_shape": image}
    state = {"structure": structure_state(changes), "model": model.state_dict()}
    write_checkpoint(folder / "checkpoint.pt", {**described, **state, "precision": "fp32"})
    return deployed(folder / "checkpoint.pt")


def compiled(model: nn.Module, one: tuple[Tensor, ...]) -> Callable[[], object]:
    """torch.compile's kernels for a network of floats, its weights frozen as those of a quantized one are."""
    from torch._inductor import config

    network = torch.compile(model)

    def run() -> object:
        with config.patch(freezing=True):
            return network(*one)

    return run


@torch.no_grad()
def latency(networks: Sequence[str], threads: int) -> None:
    torch.set_num_threads(threads)
    wanted = ["onnx", "pt2e"] if has("torchao") else ["onnx"]
    print(f"one image, {threads} thread(s); onnx: in onnxruntime; pt2e: through torch.compile, as the floats beside it")
    for arch in networks:
        model, example = random_network(arch)
        rounded, report = quantized(copy.deepcopy(model), example, [torch.randn_like(example[0]) for _ in range(4)])
        with tempfile.TemporaryDirectory() as name:
            places = [Path(name) / "floats", Path(name) / "whole numbers"]
            floats = kept(model, arch, places[0])
            whole = kept(rounded, arch, places[1], report.folded, Quantized(report.plan))
            for network, place, formats in ((floats, places[0], ["onnx"]), (whole, places[1], wanted)):
                chosen = asked_for(formats, "formats")
                written = write_artifact(network, chosen, place / "artifact", source={}, latency=False)
            for form, why in written.left_out.items():
                print(f"  {arch:15} {form:5} left out: {why}", flush=True)
            one = tuple(value[:1] for value in whole.inputs)
            for form in written.formats:
                dense, small = (place / "artifact" for place in places)
                run = load(small, form, threads=threads)
                if form == "onnx":
                    beside: Callable[[], object] = functools.partial(load(dense, form, threads=threads), one)
                else:
                    beside = compiled(floats.model, one)
                times = side_by_side([beside, functools.partial(run, one)], 15)
                files = [dense / "model.onnx", next(small.glob(f"*{ENDS[form]}"))]
                sizes = [file.stat().st_size for file in files]
                simulated = [*parts(whole.outputs)]
                off = difference(simulated, [*parts(run(whole.inputs))])
                lost = difference([floats.model(*whole.inputs)], simulated)
                print(
                    f"  {arch:15} {form:5} {1000 * times[0]:7.2f} ms {1000 * times[1]:7.2f} ms "
                    f"{times[0] / times[1]:5.2f} x; {sizes[0]:11,} {sizes[1]:10,} bytes {sizes[1] / sizes[0]:4.2f}; "
                    f"{off:5.1%} {lost:5.1%}",
                    flush=True,
                )
    print("last columns: how far the file's outputs are from the simulated ones, and those from the floats'")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["step", "calibration", "latency"])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    for name in given.what:
        {"step": steps, "calibration": calibration, "latency": lambda: latency(given.networks, given.threads)}[name]()


if __name__ == "__main__":
    main()
