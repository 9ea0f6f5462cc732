"""The script in the folder, on images: it sees what the engine's own reading and the checkpoint see."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from raydistill.export import asked_for, deployed, write_artifact
from raydistill.training import load_model
from tests.export.conftest import SEEN, keep

pytest.importorskip("onnxruntime")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((140, 90)).save(tmp_path / "image.png")
    return tmp_path / "image.png"


@pytest.mark.slow
def test_it_is_told_what_the_network_sees(tmp_path: Path, image: Path) -> None:
    checkpoint, folder = keep(tmp_path / "checkpoint.pt", "simplenet_cifar"), tmp_path / "out"
    write_artifact(deployed(checkpoint), asked_for(["onnx"], "f"), folder, source={}, latency=False)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(folder / "classify.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    told = run(image.name, image.name)
    assert told.returncode == 0, told.stderr
    pixels = np.asarray(Image.open(image).resize((32, 32), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    images = torch.from_numpy((pixels - np.array(SEEN["mean"])) / np.array(SEEN["std"])).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        shares = load_model(checkpoint)(images).softmax(1)[0]
    best = int(shares.argmax())
    assert told.stdout.splitlines()[0].startswith(f"image.png: class {best} {100 * float(shares[best]):.1f} %, ")
    assert len(told.stdout.splitlines()) == 2

    (tmp_path / "text.png").write_text("no image")
    bad = run("text.png")
    assert (bad.returncode, bad.stderr.count("\n")) == (1, 1)
    assert bad.stderr.startswith("error: text.png: ")
    assert run().returncode == 1
