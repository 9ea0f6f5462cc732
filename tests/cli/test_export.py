"""``raydistill export`` of any checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Ended
from tests.export.conftest import keep

Command = Callable[..., Ended]


@pytest.mark.slow
def test_a_checkpoint_beside_its_dense_one(raydistill: Command, tmp_path: Path) -> None:
    pruned, dense = keep(tmp_path / "p.pt", "simplenet_cifar"), keep(tmp_path / "d.pt", "simplenet_cifar", share=0.0)
    ended = raydistill(
        "export", str(pruned), "-o", str(tmp_path / "out"), "--format", "checkpoint", "--format", "bitmask",
        "--dense", str(dense), "--no-latency",
    )  # fmt: skip
    assert (ended.code, ended.err) == (0, "")
    assert "248 k" in ended.out
    assert f"written to {tmp_path / 'out'}; in that folder:" in ended.out
    names = {path.name for path in (tmp_path / "out").iterdir()}
    kept = {"checkpoint.pt", "config.json", "manifest.json", "model.bitmask.safetensors", "reference.safetensors"}
    assert names == kept
    ended = raydistill("verify", str(tmp_path / "out"), "--split", "none")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "all as its manifest says"


def test_what_is_no_checkpoint_is_one_line(raydistill: Command, tmp_path: Path) -> None:
    (tmp_path / "x.pt").write_bytes(b"no")
    ended = raydistill("export", str(tmp_path / "x.pt"), "-o", str(tmp_path / "out"), "--format", "checkpoint")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()
