"""A folder against its manifest: files, outputs, and the metrics on a split, each in the format's own runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from raydistill.errors import CheckpointError
from raydistill.export import asked_for, deployed, read_manifest, write_artifact
from raydistill.export.verify import changed_files, prepared, verified
from raydistill.tasks.classification import Classification
from raydistill.training import evaluate_checkpoint


@pytest.fixture(scope="module")
def folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("verify") / "out"
    write_artifact(deployed(trained), asked_for(["safetensors", "checkpoint"], "f"), path, source={}, latency=False)
    return path


@pytest.mark.slow
def test_each_format_has_the_checkpoints_metrics(folder: Path, trained: Path, task: Classification) -> None:
    manifest = read_manifest(folder)
    data = prepared(folder, manifest, task, None)
    expected = evaluate_checkpoint(trained, task, "test", "cpu")
    for found in verified(folder, manifest, manifest.formats, data, "test"):
        assert found.evaluation is not None
        assert (found.fault, found.evaluation.samples) == ("", 359)
        assert found.evaluation.metrics["top1"] == expected.metrics["top1"]
        assert found.evaluation.metrics["loss"] == pytest.approx(expected.metrics["loss"], abs=1e-5)


@pytest.mark.slow
def test_what_was_changed_is_said(folder: Path, tmp_path: Path) -> None:
    manifest = read_manifest(folder)
    assert changed_files(folder, manifest) == []
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "model.safetensors").write_bytes(b"other")
    (copy / "checkpoint.pt").unlink()
    assert changed_files(copy, manifest) == [
        f"{copy}/model.safetensors: is not the file that was written, its hash differs",
        f"{copy}/checkpoint.pt: is gone",
    ]
    faults = [found.fault for found in verified(copy, manifest, manifest.formats, None, "test")]
    assert all(faults)
    (copy / "reference.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"reference\.safetensors: cannot be read"):
        list(verified(copy, manifest, manifest.formats, None, "test"))


@pytest.mark.slow
def test_an_output_that_differs_is_a_fault(folder: Path) -> None:
    """The reference is of another network: as if the files were."""
    from safetensors.torch import load_file, save_file

    manifest = read_manifest(folder)
    path = folder / "reference.safetensors"
    before = path.read_bytes()
    try:
        save_file({**load_file(path), "logits": load_file(path)["logits"] + 0.5}, path)
        for found in verified(folder, replace(manifest), manifest.formats, None, "test"):
            assert "are not the masked network's: outputs differ by 5.0e-01 at most, more than" in found.fault
    finally:
        path.write_bytes(before)
