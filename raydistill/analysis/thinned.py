"""A checkpoint whose pruned filters and channels are gone."""

from __future__ import annotations

from pathlib import Path

import torch

from raydistill.analysis.network import Network
from raydistill.compression.structure import structure_state
from raydistill.compression.thinning import ThinningReport, thin
from raydistill.training.checkpoint import without_training, write_checkpoint


def write_thinned(network: Network, path: Path) -> ThinningReport:
    """Thin a network, its masks and the state of its SGD in place, and write them as a checkpoint of its own."""
    content, model = network.content, network.model
    masks = dict(content.get("scheduler", {}).get("masks", {}))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    goes_on = bool(content.get("optimizer")) and content.get("optimizer_name", "SGD") == "SGD"
    if goes_on and len(content["optimizer"]["param_groups"]) == 1:
        optimizer.load_state_dict(content["optimizer"])
    report = thin(model, masks, network.example_input(), optimizer)
    scheduler = {**content.get("scheduler", {}), "masks": masks}
    state: dict[str, object] = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler,
    }
    kept = {"history": [], **without_training(content)}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, {**kept, **state, "structure": structure_state((*network.structure, *report.changes))})
    return report
