"""What is taken away against the dense network: bytes and latency in onnxruntime and torch, side by side in one run.

    python benchmarks/delivery.py [--networks resnet20_cifar ...] [--threads 1 2]

Each network is pruned, exported by `raydistill.export.export` with the dense one beside it, and its ONNX file held
against the masked network. resnet20_cifar, simplenet_cifar and vgg16_cifar are trained for a few epochs on
scikit-learn's digits (test split, one seed), and the metric of the exported files is compared with the checkpoint's to
the image; mobilenet_v2 and vit_b_16 have random weights: only outputs are compared.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from raydistill import models
from raydistill.datasets import DatasetConfig, load
from raydistill.export import asked_for, deployed, write_artifact
from raydistill.export.verify import prepared, verified
from raydistill.schedule import parse_schedule
from raydistill.tasks.classification import Classification
from raydistill.training import RunConfig, evaluate_checkpoint, fit
from raydistill.training.checkpoint import read_checkpoint, write_checkpoint


@dataclass(frozen=True)
class Case:
    """what: how it is pruned. size: of its images. trained: on digits; else its weights are random."""

    arch: str
    what: str
    size: int
    trained: bool


CASES = (
    Case("resnet20_cifar", "31 % of the filters of all layers: half of the MACs", 32, True),
    Case("simplenet_cifar", "85 % of single weights", 32, True),
    Case("vgg16_cifar", "half of the filters of all convolutions", 32, True),
    Case("mobilenet_v2", "30 % of the channels of all layers", 224, False),
    Case("vit_b_16", "half of the neurons of all MLPs", 224, False),
)
_EPOCHS, _DENSE_EPOCHS = 2, 3


@torch.no_grad()
def prune(model: nn.Module, case: Case) -> None:
    """In place. Of layers that are as wide the same channels go, so that sums lose them too."""
    torch.manual_seed(0)
    common: dict[int, torch.Tensor] = {}

    def leaving(width: int, share: float) -> torch.Tensor:
        if width not in common:
            common[width] = torch.randperm(width)[: int(width * share)]
        return common[width]

    share = {"resnet20_cifar": 0.31, "vgg16_cifar": 0.5, "mobilenet_v2": 0.3, "vit_b_16": 0.5}.get(case.arch, 0.0)
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    for name, module in layers[:-1]:  # the last one gives the classes
        if case.arch == "simplenet_cifar":
            weight = module.weight
            weight[weight.abs() <= weight.abs().flatten().kthvalue(int(0.85 * weight.numel())).values] = 0.0
        elif case.arch == "vit_b_16":
            if name.endswith("mlp.0"):
                gone = leaving(module.weight.shape[0], share)
                module.weight[gone], module.bias[gone] = 0.0, 0.0
        elif isinstance(module, nn.Conv2d):
            gone = leaving(module.weight.shape[0], share)
            module.weight[gone] = 0.0
    if case.arch in ("resnet20_cifar", "mobilenet_v2", "vgg16_cifar"):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                gone = leaving(module.num_features, share)
                module.weight[gone], module.bias[gone] = 0.0, 0.0


def checkpoints(case: Case, folder: Path, task: Classification) -> tuple[Path, Path]:
    """(dense, pruned)."""
    dense, pruned = folder / "dense.pt", folder / "pruned.pt"
    if case.trained:
        rate = 0.01 if case.arch == "vgg16_cifar" else 0.05
        run = RunConfig(
            case.arch, DatasetConfig("digits"), epochs=_DENSE_EPOCHS, batch_size=64, lr=rate, tensorboard=False,
            device="cpu", precision="fp32", out_dir=str(folder / "run"),
        )  # fmt: skip
        *_, last = fit(run, task=task)
        content = read_checkpoint(str(last.checkpoint))
    else:
        torch.manual_seed(0)
        content = {
            "run": {"arch": case.arch, "model_args": {}}, "num_classes": 1000, "precision": "fp32", "structure": [],
            "image_shape": [3, case.size, case.size], "model": models.create(case.arch, 1000).state_dict(),
        }  # fmt: skip
    model = models.create(case.arch, content["num_classes"]).eval()
    model.load_state_dict(content["model"])
    if not case.trained:
        _unsettle(model)
        content["model"] = model.state_dict()
    write_checkpoint(dense, {**content, "model": {k: v.clone() for k, v in model.state_dict().items()}})
    prune(model, case)
    write_checkpoint(pruned, {**content, "model": model.state_dict()})
    if case.trained:  # batch norms and weights get used to it: a masked fine-tuning
        zeros = parse_schedule(_keeps_zeros(model), "zeros")
        run = replace(run, epochs=_EPOCHS, lr=0.01, schedule=zeros, init_from=str(pruned), out_dir=str(folder / "fine"))
        *_, last = fit(run, task=task)
        pruned = Path(str(last.checkpoint))
    return dense, pruned


def _unsettle(model: nn.Module) -> None:
    """Norms and heads as training might leave them: fresh ones would hide what goes wrong before them."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)


def _keeps_zeros(model: nn.Module) -> dict[str, Any]:
    """A schedule that masks each weight at the level it has: what is zero stays zero."""
    levels = {
        name: float((weight == 0).float().mean())
        for name, weight in model.named_parameters()
        if weight.dim() > 1 and bool((weight == 0).any())
    }
    return {
        "version": 1,
        "pruners": {"level": {"class": "SparsityLevelParameterPruner", "levels": levels}},
        "policies": [{"pruner": {"instance_name": "level"}, "epochs": [0]}],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=[case.arch for case in CASES])
    parser.add_argument("--threads", nargs="*", type=int, default=[1, 2])
    said = parser.parse_args()
    task = Classification(load(DatasetConfig("digits")))
    forms = asked_for(["onnx", "safetensors"], "formats")
    for case in (case for case in CASES if case.arch in said.networks):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            dense_path, pruned_path = checkpoints(case, folder, task)
            network = deployed(pruned_path)
            dense = deployed(dense_path, inputs=network.inputs)
            print(f"\n{case.arch}: {case.what}")
            for threads in said.threads:
                out = folder / f"out{threads}"
                manifest = write_artifact(network, forms, out, source={}, dense=dense, threads=threads)
                if threads == said.threads[0]:
                    beside = folder / "dense"
                    whole = write_artifact(dense, forms, beside, source={}, latency=False)
                    for name in ("macs", "parameters", "size_bytes"):
                        before, after = manifest.dense[name], manifest.network[name]
                        print(f"  {name:<11} {before:>14,.0f} {after:>14,.0f}  {after / before:.2f} of dense")
                    sizes = [next(f.bytes for f in m.files if f.name == "model.onnx") for m in (whole, manifest)]
                    print(f"  {'model.onnx':<11} {sizes[0]:>14,} {sizes[1]:>14,}  {sizes[1] / sizes[0]:.2f} of dense")
                    most = max(manifest.agreement.values())
                    print(f"  outputs differ by {most:.1e}, the largest is {manifest.largest_output:.2f}")
                    if case.trained:
                        _compare(pruned_path, out, task)
                for row in manifest.latency:
                    before, after = row["ms"]["dense"]["median"], row["ms"]["this"]["median"]
                    print(
                        f"  {row['runtime']:<12} {row['threads']} threads, batch {row['batch']:>3}: {before:>9.3f} ms "
                        f"{after:>9.3f} ms, {before / after:.2f} x{', busy' if row['busy'] else ''}"
                    )


def _compare(checkpoint: Path, folder: Path, task: Classification) -> None:
    from raydistill.export import read_manifest

    expected = evaluate_checkpoint(checkpoint, task, "test", "cpu")
    manifest = read_manifest(folder)
    for found in verified(folder, manifest, manifest.formats, prepared(folder, manifest, task, None), "test"):
        assert found.evaluation is not None
        right = [round(e.metrics["top1"] * e.samples) for e in (expected, found.evaluation)]
        print(f"  test top1 in {found.runtime}: {right[1]} of {expected.samples}, the checkpoint {right[0]}")


if __name__ == "__main__":
    main()
