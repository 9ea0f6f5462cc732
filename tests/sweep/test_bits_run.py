"""A real sweep over sparsity and bits: its front counts bits, and what is picked is whole numbers."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

from raydistill.sweep.record.journal import read_journal
from tests.sweep.test_warm_run import RUN, sweep

SPACE = {
    "version": 1, "name": "bits", "model": {"arch": "simplenet_cifar"}, "dataset": {"name": "digits"},
    "training": {"epochs": 2, "batch_size": 256, "lr": 0.02}, "baseline": {"epochs": 2},
    "schedule": {
        "pruners": {"p": {"class": "SparsityLevelParameterPruner", "levels": {"fc1.weight": 0.5}}},
        "quantizers": {"q": {"class": "QuantAwareTrainRangeLinearQuantizer", "bits_weights": 8, "bits_activations": 8}},
        "policies": [
            {"pruner": {"instance_name": "p"}, "epochs": [0]},
            {"quantizer": {"instance_name": "q"}, "starting_epoch": 0, "ending_epoch": 2, "frequency": 1},
        ],
    },
    "search": {"per_layer": [
        {"weights": ["fc1.weight"], "level": {"uniform": [0.5, 0.9]}, "bits_weights": {"choice": [2, 8]}},
    ]},
    "objectives": {"top1": "max", "size_bytes": "min"},
    "trial_scheduler": {"name": "none"}, "num_samples": 4, "seed": 2,
}  # fmt: skip


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.long
def test_bits_count_and_what_is_picked_is_whole_numbers(tmp_path: Path, spared: None) -> None:
    (tmp_path / "bits.yaml").write_text(yaml.safe_dump(SPACE))
    shown = sweep(tmp_path, "bits.yaml", "--cpu", "--storage", "kept")
    assert "cannot trace" not in shown
    records = read_journal(tmp_path / "kept" / "bits" / "journal.jsonl").records.values()
    sizes: dict[int, list[float]] = {2: [], 8: []}
    for record in records:
        if record.last is not None and "size_bytes" in record.last.footprint and record.values:
            bits = record.values["per_layer.fc1.weight.bits_weights"]
            sizes[int(str(bits))].append(record.last.footprint["size_bytes"])
    assert max(sizes[2]) < min(sizes[8]) - 0.7 * 48_000  # six of eight bits of each of fc1's weights
    picked = [*RUN, "pick", "bits", "--knee", "-o", "net", "--storage", "kept", "--format", "onnx,safetensors"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([*picked, "--no-latency"], cwd=tmp_path, env=environment, check=True, timeout=600)
    manifest = json.loads((tmp_path / "net" / "manifest.json").read_text())
    assert manifest["rounded"]
    assert manifest["left_out"] == {}
    assert manifest["network"]["size_bytes"] < 0.3 * manifest["dense"]["size_bytes"]
