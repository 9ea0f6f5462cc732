"""Mean average precision and loss over a split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from raydistill.errors import ABSENT, ConfigError, Fault
from raydistill.metrics import FRACTION, LOSS, MAX, MIN, Metric
from raydistill.tasks.base import Loading, Network
from raydistill.tasks.detection.feed import DetectionBatch, Target

MAP, MAP_50 = "map", "map_50"
METRICS: Mapping[str, Metric] = {
    MAP: Metric(MAX, FRACTION, "mean average precision (IoU 0.5 to 0.95)"),
    MAP_50: Metric(MAX, FRACTION, "mean average precision (IoU 0.5)"),
    LOSS: Metric(MIN),
}
"""As COCO has them, of boxes."""


def detection_loss(network: Network, batch: DetectionBatch) -> Tensor:
    """The sum of the losses that a network in train mode gives, ``network(images, targets)``.

    Raises:
        ConfigError: it gives none.
    """
    images, targets = batch
    trained_on = [{key: value for key, value in target.items() if key != "iscrowd"} for target in targets]
    losses = network(images, trained_on)
    if not isinstance(losses, Mapping) or not losses:
        rule = "a detector in train mode must give a mapping of losses, as torchvision's do"
        raise ConfigError(Fault("model.arch", rule, type(losses).__name__))
    return torch.stack([value.float() for value in losses.values()]).sum()


@torch.no_grad()
def evaluate_detection(
    network: nn.Module, batches: Iterable[DetectionBatch], loading: Loading, with_loss: bool = True
) -> dict[str, float]:
    """`METRICS` of all ranks together, the same on each; the modules' own modes are put back.

    with_loss: which an exported network cannot give. It draws which boxes it looks at, as in training, but the same
    ones for the same batches.
    """
    modes = [(module, module.training) for module in network.modules()]
    loss, images = 0.0, 0
    found: list[tuple[Target, Target]] = []
    device = loading.device
    try:
        for index, batch in enumerate(batches):
            with loading.autocast():
                network.eval()
                said = network(batch[0])
                if with_loss:
                    _to_train_but_for_statistics(network)
                    with torch.random.fork_rng([device] if device.type == "cuda" else []):
                        torch.manual_seed(index)
                        loss += float(detection_loss(network, batch)) * len(batch[0])
            images += len(batch[0])
            found += zip(map(_on_cpu, said), map(_on_cpu, batch[1]), strict=True)
    finally:
        for module, mode in modes:
            module.training = mode
    parts = loading.ranks.gather((loss, images, found))
    pairs = [pair for part in parts for pair in part[2]]
    lost = {LOSS: sum(part[0] for part in parts) / max(1, sum(part[1] for part in parts))} if with_loss else {}
    return {**precision(pairs), **lost}


def precision(pairs: list[tuple[Target, Target]]) -> dict[str, float]:
    """map and map_50 of (what was said, what is there), one pair an image: boxes, labels and scores."""
    try:
        from torchmetrics.detection import MeanAveragePrecision

        metric = MeanAveragePrecision(box_format="xyxy", iou_type="bbox")
    except (ImportError, ModuleNotFoundError) as error:
        way_out = "pip install 'raydistill[detection]'"
        rule = "detection needs the packages torchmetrics and pycocotools"
        raise ConfigError(Fault("task.name", rule, ABSENT, way_out)) from error
    metric.warn_on_many_detections = False
    metric.update([said for said, _ in pairs], [there for _, there in pairs])
    figures = metric.compute()
    return {name: max(0.0, float(figures[name])) for name in (MAP, MAP_50)}  # -1: there is nothing to be found


def _on_cpu(values: Mapping[str, Tensor]) -> Target:
    kept = ("boxes", "labels", "scores", "iscrowd")
    return {
        key: value.float().cpu() if value.is_floating_point() else value.cpu()
        for key, value in values.items()
        if key in kept
    }


def _to_train_but_for_statistics(network: nn.Module) -> None:
    """Train mode, in which a detector gives its losses; what keeps statistics or drops values stays as it is."""
    for module in network.modules():
        quiet = isinstance(module, nn.modules.dropout._DropoutNd) or hasattr(module, "running_mean")
        module.training = not quiet
