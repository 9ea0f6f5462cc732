"""An archive of torch.export's is looked through before it is loaded: nothing in it may run."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from raydistill.errors import CheckpointError, ConfigError
from raydistill.export import asked_for, deployed, write_artifact
from raydistill.export.formats.pt2 import check_archive

pytestmark = pytest.mark.slow


class Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("echo it ran",)


def archive(path: Path) -> Path:
    class Sized(nn.Module):
        def forward(self, rows: torch.Tensor) -> torch.Tensor:
            return rows.reshape(rows.shape[0] * rows.shape[1]) + rows.shape[0] // 2

    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(Sized(), (torch.zeros(4, 3),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes] | None = None) -> Path:
    with zipfile.ZipFile(path) as before:
        members = {name: before.read(name) for name in before.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as after:
        for name, content in members.items():
            after.writestr(name, change(name, content))
        for name, content in (more or {}).items():
            after.writestr(f"{root}/{name}", content)
    return path


def pickled() -> bytes:
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    return buffer.getvalue()


def test_what_torch_wrote_passes(tmp_path: Path) -> None:
    path = archive(tmp_path / "model.pt2")
    check_archive(path)
    assert torch.export.load(path).module()(torch.zeros(6, 3)).shape == (18,)


def swap(before: str, after: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, content: bytes) -> bytes:
        return content.replace(before.encode(), after.encode()) if name.endswith("model.json") else content

    return change


@pytest.mark.parametrize(
    ("change", "more", "says"),
    [
        (swap('"torch.ops.aten.', '"os.system.'), {}, "is no operator of torch"),
        (swap('"expr_str": "', "\"expr_str\": \"__import__('os').system('echo it ran') + "), {}, "is no arithmetic"),
        (swap('"expr_str": "', '"expr_str": "[].append.__self__ + '), {}, "is no arithmetic"),
        (lambda n, c: pickled() if n.endswith(".pt") else c, {}, "cannot be read without running code"),
        (lambda n, c: c, {"data/aotinductor/model/kernel.so": b"x"}, "is code or an object"),
        (lambda n, c: c, {"data/constants/custom_obj_0": b"x"}, "is code or an object"),
        (
            lambda n, c: c,
            {"data/constants/other_config.json": json.dumps({"config": {"a": {"use_pickle": True}}}).encode()},
            "asks for a pickle",
        ),
        (lambda n, c: c, {"models/other.json": b"[" * 100_000}, "is no archive of torch.export's"),
    ],
)
def test_what_could_run_is_refused(
    tmp_path: Path, change: Callable[[str, bytes], bytes], more: dict[str, bytes], says: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = rewritten(archive(tmp_path / "model.pt2"), change, more)
    with pytest.raises(CheckpointError, match=says) as caught:
        check_archive(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_what_is_no_archive_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "model.pt2").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match=r"is no archive of torch\.export's"):
        check_archive(tmp_path / "model.pt2")


def test_a_network_that_cannot_be_traced_is_said(resnet: Path, tmp_path: Path) -> None:
    network = deployed(resnet)
    forward = network.model.forward
    network.model.forward = lambda images: forward(images) if float(images.sum()) != 7 else images  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match=r"pt2: torch\.export cannot trace the network"):
        write_artifact(network, asked_for(["pt2"], "formats"), tmp_path / "out", source={}, latency=False)
    assert list(tmp_path.iterdir()) == []
