"""What quantization costs in time, and what it saves: pairs in one run.

    python benchmarks/quantization_speed.py [step] [calibration] [latency] [--networks resnet20_cifar ...]

step: a training step of resnet20_cifar with each quantizer against the same step with floats (1.6 times is allowed).
calibration: quantizing resnet50 after training with 512 images of 224 x 224 (three minutes are allowed).
latency: the ONNX file of the quantized network against that of the float one, in onnxruntime, and its bytes. Weights
are random there, and how far outputs lie apart is told.
"""

from __future__ import annotations

import argparse
import copy
import functools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from raydistill import models
from raydistill.compression.deployment import deploy
from raydistill.compression.post_training import calibrate, post_train
from raydistill.compression.quantizers import MENU
from raydistill.compression.quantizers.post_train import PostTrainLinearQuantizer
from raydistill.export.formats.onnx import onnx_model

STEPS: Mapping[str, Mapping[str, Any]] = {
    "QuantAwareTrainRangeLinearQuantizer": {"bits_weights": 8, "bits_activations": 8, "per_channel_wts": True},
    "DorefaQuantizer": {"bits_weights": 3, "bits_activations": 8},
    "WRPNQuantizer": {"bits_weights": 4, "bits_activations": 4},
    "LSQQuantizer": {"bits_weights": 4, "bits_activations": 4},
    "PACTQuantizer": {"bits_weights": 4, "bits_activations": 4},
}
NETWORKS = ("resnet20_cifar", "resnet50", "mobilenet_v2", "vit_b_16")
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
        nn.init.normal_(model.get_parameter("heads.head.weight"), std=0.02)  # zero as it is made
    return model, example


def quantized(model: nn.Module, example: tuple[Tensor, ...], images: Sequence[Tensor]) -> nn.Module:
    quantizer = PostTrainLinearQuantizer("q", per_channel_wts=True, mode=FOR_SPEED)
    with torch.no_grad():
        found = calibrate(model, example, lambda: iter([(batch,) for batch in images]), quantizer)
        post_train(model, quantizer, example, found)
    return model


def calibration() -> None:
    model, example = random_network("resnet50")
    images = [torch.randn(32, *example[0].shape[1:]) for _ in range(16)]
    begun = time.perf_counter()
    quantized(model, example, images)
    print(f"quantizing resnet50 after training with 512 images: {time.perf_counter() - begun:.0f} s")


def latency(networks: Sequence[str], threads: int) -> None:
    import onnxruntime  # type: ignore[import-not-found,import-untyped,unused-ignore]

    print(f"ONNX files in onnxruntime, {threads} thread(s), one image")
    for arch in networks:
        model, example = random_network(arch)
        rounded = quantized(copy.deepcopy(model), example, [torch.randn_like(example[0]) for _ in range(4)])
        with torch.no_grad():
            floats, expected = model(*example), rounded(*example)
        sessions, sizes = [], []
        for network in (model, rounded):
            deploy(network, example)
            content = onnx_model(network, example, (0,)).SerializeToString()
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.log_severity_level = threads, 3
            sessions.append(onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]))
            sizes.append(len(content))
        fed = {sessions[0].get_inputs()[0].name: example[0].numpy()}
        found = torch.from_numpy(sessions[1].run(None, fed)[0])
        one = {name: value[:1] for name, value in fed.items()}
        passes = [functools.partial(session.run, None, one) for session in sessions]
        times = side_by_side(passes, 15)
        span = float(expected.abs().max())
        print(
            f"  {arch:16} {1000 * times[0]:8.2f} ms {1000 * times[1]:8.2f} ms {times[0] / times[1]:5.2f} times faster; "
            f"{sizes[0]:11,} {sizes[1]:11,} bytes {sizes[1] / sizes[0]:5.2f}; the file differs from the simulation by "
            f"{float((found - expected).abs().max()) / span:.1%}, that from floats by "
            f"{float((floats - expected).abs().max()) / span:.1%}",
            flush=True,
        )


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
