"""``raydistill pick``, and what it leaves: the way of a new user from the end of a sweep to a classified image."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from raydistill.storage import open_store
from tests.cli.conftest import Ended
from tests.cli.test_front import in_bucket, storage  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow
Command = Callable[..., Ended]


def test_from_a_sweep_to_an_image_in_two_commands(raydistill: Command, storage: Path, tmp_path: Path) -> None:  # noqa: F811
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    ended = raydistill("pick", "tiny", "--storage", str(storage), "--max-drop", "1", "-o", str(out), "--no-latency")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("t0002 of tiny")  # the sparsest of all
    command = f"python {out}/classify.py IMAGE"
    assert f"  {command}" in ended.out.splitlines()
    manifest = json.loads((out / "manifest.json").read_text())
    digits = load_digits()
    right = 0
    paths = []
    for index in range(40):
        image = Image.fromarray((digits.images[-1 - index] * 255 / 16).astype(np.uint8))
        image.resize((32, 32), Image.Resampling.BILINEAR).save(path := tmp_path / f"{index}.png")
        paths.append(str(path))
    told = subprocess.run(
        [sys.executable, str(out / "classify.py"), *paths], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for index, line in enumerate(told):
        right += line.partition(": ")[2].split()[0] == str(digits.target[-1 - index])
    assert abs(right / 40 - manifest["figures"]["test"]["top1"]) < 0.2
    ended = raydistill("verify", str(out))
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("that of the masked network, 359 samples") == 4
    assert ended.out.splitlines()[-1] == "all as its manifest says"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--trial", "t0003"), "error: --trial t0003: has not finished, it is stopped"),
        (("--trial", "t9"), "error: --trial: there is no such trial, got 't9'"),
        (
            ("--max-drop", "0", "--where", "size_bytes <= 10"),
            "error: pick: no trial meets top1_drop <= 0 and size_bytes",
        ),
        (("--knee", "--best", "macs"), "error: --knee: cannot stand beside --max-drop, --best or --where"),
        (("--best", "mac"), "error: --best: no such figure, got 'mac'; did you mean 'macs'?"),
        (("--format", "onxx"), "error: --format: no such format, got 'onxx'; did you mean 'onnx'?"),
        (("-o", "taken"), "error: taken: is there already; choose another folder, or remove it first"),
    ],
)
def test_what_cannot_be_had_is_one_line(
    raydistill: Command, storage: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,  # noqa: F811
    arguments: tuple[str, ...], says: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    ended = raydistill("pick", "tiny", "--storage", str(storage), *arguments)
    assert ended.code == 2
    assert ended.err.startswith(says)
    assert ended.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"taken"}


def test_from_a_bucket(raydistill: Command, in_bucket: str, storage: Path, tmp_path: Path) -> None:  # noqa: F811
    """On a machine that has nothing of the sweep: what comes of it is what comes of the sweep's folder."""
    for name, where in (("bucket", in_bucket), ("folder", str(storage))):
        arguments = ("--storage", where, "--max-drop", "1", "--no-latency", "--format", "checkpoint,bitmask")
        ended = raydistill("pick", "tiny", "-o", str(tmp_path / name), *arguments)
        assert (ended.code, ended.err) == (0, "")
        assert ended.out.startswith("t0002 of tiny")
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("bucket", "folder")]
    files = [[(file["name"], file["bytes"]) for file in manifest.pop("files")] for manifest in manifests]
    assert files[0] == files[1]
    assert manifests[0] == manifests[1]
    assert manifests[0]["dense"]["size_bytes"] == 248_024
    ended = raydistill("verify", str(tmp_path / "bucket"))
    assert (ended.code, ended.err) == (0, "")


def test_one_that_is_gone_from_a_bucket_is_one_line(raydistill: Command, in_bucket: str, tmp_path: Path) -> None:  # noqa: F811
    open_store(in_bucket).objects.delete("tiny/trials/t0001/checkpoint.pt")  # type: ignore[attr-defined]
    ended = raydistill("pick", "tiny", "--storage", in_bucket, "--trial", "t0001", "-o", str(tmp_path / "out"))
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert f"{in_bucket}/tiny/trials/t0001/checkpoint.pt" in ended.err
    assert not (tmp_path / "out").exists()
