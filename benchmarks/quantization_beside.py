"""torchao and NNCF beside raydistill: quantizing to 8 bits in training and after it, in one run.

    python benchmarks/quantization_beside.py [step] [calibration] [accuracy --checkpoint FILE --data-dir CIFAR10]

step: a training step of resnet20_cifar with rounding against the same step with floats, in turns.
calibration: seconds that quantizing resnet50 and mobilenet_v2 takes with 512 images of 224 x 224, in turns, twice.
accuracy: top1 of a checkpoint on the test split, ranges from 512 training images, the same for all, for three seeds.

All three have a range a channel for weights. torchao: PT2E with the quantizer for Inductor on x86; NNCF:
`nncf.quantize` with its defaults, which also corrects biases. Neither is a dependency: install them beside,
`pip install --no-deps --target FOLDER torchao nncf ninja pydot tabulate openvino-telemetry`, and name FOLDER in
PYTHONPATH. NNCF compiles kernels the first time, which NNCF_EXTENSION_LOAD_TIMEOUT=0 lets it.
"""

from __future__ import annotations

import argparse
import copy
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import nncf  # type: ignore[import-not-found]
import torch
import torchao.quantization.pt2e.quantizer.x86_inductor_quantizer as x86  # type: ignore[import-not-found]
from quantization_accuracy import arch_and_task, on_test
from quantization_speed import STEPS, quantized, random_network, side_by_side, step_of
from torch import Tensor, nn
from torchao.quantization.pt2e import (  # type: ignore[import-not-found]
    allow_exported_model_train_eval,
    move_exported_model_to_train,
)
from torchao.quantization.pt2e.quantize_pt2e import (  # type: ignore[import-not-found]
    convert_pt2e,
    prepare_pt2e,
    prepare_qat_pt2e,
)

from raydistill import models
from raydistill.analysis.network import read_network
from raydistill.compression.quantizers import MENU
from raydistill.tasks import Loading
from raydistill.tasks.feeds import training_batches

_IMAGES, _BATCH = 512, 32
Batches = Sequence[Tensor]
After = Callable[[nn.Module, Batches], nn.Module]


def exported(model: nn.Module, batch: Tensor) -> nn.Module:
    """For any number of images."""
    dynamic = {0: torch.export.Dim("images", max=4096)}
    return torch.export.export(model, (batch,), dynamic_shapes=(dynamic,)).module()  # type: ignore[return-value]


def here(model: nn.Module, batches: Batches) -> nn.Module:
    return quantized(model, (batches[0],), batches)[0]


def torchao(model: nn.Module, batches: Batches) -> nn.Module:
    quantizer = x86.X86InductorQuantizer().set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported(model.eval(), batches[0]), quantizer)
    for batch in batches:
        prepared(batch)
    found = convert_pt2e(prepared)
    allow_exported_model_train_eval(found)
    return found


def by_nncf(model: nn.Module, batches: Batches) -> nn.Module:
    return nncf.quantize(model.eval(), nncf.Dataset(batches), subset_size=len(batches))


AFTER: dict[str, After] = {"raydistill": here, "torchao": torchao, "NNCF": by_nncf}


def trained_here(model: nn.Module, images: Tensor) -> nn.Module:
    name = "QuantAwareTrainRangeLinearQuantizer"
    MENU[name]("q", **STEPS[name]).plan(model, (images[:2],)).carry_out(model)
    return model.train()


def trained_by_torchao(model: nn.Module, images: Tensor) -> nn.Module:
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=True))
    prepared = prepare_qat_pt2e(exported(model.train(), images), quantizer)
    move_exported_model_to_train(prepared)
    allow_exported_model_train_eval(prepared)
    return prepared


IN_TRAINING: dict[str, Callable[[nn.Module, Tensor], nn.Module]] = {
    "raydistill": trained_here,
    "torchao": trained_by_torchao,
    "NNCF": lambda model, images: by_nncf(model, [images]).train(),
}


def step() -> None:
    images = torch.randn(128, 3, 32, 32)
    floats = models.create("resnet20_cifar", 10)
    names, passes = [], [step_of(floats, images)]
    for name, make in IN_TRAINING.items():
        try:
            passes.append(step_of(make(copy.deepcopy(floats), images), images))
        except Exception as error:  # whatever another's tool raises is what is told of it
            print(f"  {name:10} {type(error).__name__}: {str(error).splitlines()[0][:80]}", flush=True)
        else:
            names.append(name)
    print("a training step of resnet20_cifar, 128 images")
    dense, *times = side_by_side(passes, 8)
    print(f"  {'floats':10} {1000 * dense:7.0f} ms")
    for name, took in zip(names, times, strict=True):
        print(f"  {name:10} {1000 * took:7.0f} ms  {took / dense:5.2f} times", flush=True)


@torch.no_grad()
def calibration() -> None:
    print(f"quantized after training, {_IMAGES} images, two times")
    for arch in ("resnet50", "mobilenet_v2"):
        model, example = random_network(arch)
        batches = [torch.randn(_BATCH, *example[0].shape[1:]) for _ in range(_IMAGES // _BATCH)]
        told: dict[str, str] = dict.fromkeys(AFTER, "")
        for _ in range(2):
            for name, quantize in AFTER.items():
                begun = time.perf_counter()
                try:
                    quantize(copy.deepcopy(model), batches)
                except Exception as error:  # whatever another's tool raises is what is told of it
                    told[name] = f"  {type(error).__name__}: {str(error).splitlines()[0][:60]}"
                else:
                    told[name] += f"{time.perf_counter() - begun:6.0f} s"
        for name, line in told.items():
            print(f"  {arch:12} {name:10} {line}", flush=True)


@torch.no_grad()
def accuracy(checkpoint: Path, data_dir: str, seeds: int) -> None:
    _, task = arch_and_task(checkpoint, data_dir)
    floats = read_network(checkpoint, None).model.eval()
    print(f"top1 of {checkpoint.name} on the test split, {seeds} seeds")
    print(f"  {'floats':10} {100 * on_test(floats, task):6.2f}", flush=True)
    for name, quantize in AFTER.items():
        found = []
        for seed in range(seeds):
            loading = Loading(torch.device("cpu"), _BATCH, seed, _IMAGES / 45_000)
            batches = [batch[0] for batch in training_batches(task, loading)()]
            found.append(100 * on_test(quantize(copy.deepcopy(floats), batches), task))
        told = f"{statistics.mean(found):6.2f}  from {min(found):.2f} to {max(found):.2f}"
        print(f"  {name:10} {told}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["step", "calibration"])
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    logging.getLogger("nncf").setLevel(logging.ERROR)
    if "accuracy" in given.what and not (given.checkpoint and given.data_dir):
        parser.error("accuracy is that of --checkpoint on the images of --data-dir")
    for name in given.what:
        {
            "step": step,
            "calibration": calibration,
            "accuracy": lambda: accuracy(given.checkpoint, given.data_dir, given.seeds),
        }[name]()


if __name__ == "__main__":
    main()
