"""A registered classifier behind MLflow's own server, and in the folder of a container, where raydistill is not."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from raydistill.datasets.decode import decode_image
from raydistill.errors import TrackingError
from raydistill.tracking import SweepLog
from raydistill.tracking.models import export

pytestmark = pytest.mark.slow  # torch.export and MLflow's server

SEEN = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "image_size": [8, 8], "interpolation": "bilinear"}
ABOUT = {"preprocessing": SEEN, "classes": ["cat", "dog", "eel"]}
EXAMPLE = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).eval()


def logits(pixels: np.ndarray) -> np.ndarray:
    """Of uint8 (N, H, W, 3), prepared by hand."""
    images = ((pixels / 255 - SEEN["mean"]) / SEEN["std"]).transpose(0, 3, 1, 2).astype(np.float32)
    with torch.no_grad():
        found: np.ndarray = network()(torch.from_numpy(images)).numpy()
    return found


def away(folder: Path) -> dict[str, str]:
    """The environment of a process in which raydistill cannot be imported."""
    (folder / "raydistill").mkdir()
    (folder / "raydistill" / "__init__.py").write_text("raise ImportError('raydistill is not here')")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture
def registered(storage: Path, trial: Any) -> str:
    """The tracking URI of a store whose registry has ``models:/pets@pareto-knee``."""
    log = SweepLog(None, storage, "pets", "sweep-1")
    log.start()
    log.trial_started(trial("t0000"))
    log.trial_ended(trial("t0000"))
    log.register(log.log_model("t0000", network(), EXAMPLE, metadata=ABOUT))
    assert log.finish() == 0
    assert log.errors == []
    return f"sqlite:///{storage}/mlflow.db"


@contextmanager
def server(environment: dict[str, str], folder: Path) -> Iterator[str]:
    """``mlflow models serve`` until the block ends; where it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/pets@pareto-knee"]
    command += ["-p", str(port), "--env-manager", "local"]
    address, said = f"http://127.0.0.1:{port}", folder / "server.log"
    with said.open("w") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        for _ in range(240):
            assert process.poll() is None, said.read_text()
            try:
                with urllib.request.urlopen(f"{address}/ping"):
                    break
            except OSError:
                time.sleep(0.5)
        else:
            raise AssertionError(said.read_text())
        yield address
    finally:
        os.killpg(process.pid, 9)
        process.wait()


def test_raw_images_are_answered_over_http(registered: str, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels[0]).resize((20, 30)).save(tmp_path / "images" / "large.jpg")
    texts = []
    for picture in pixels:
        content = io.BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        texts.append(base64.b64encode(content.getvalue()).decode())
    environment = away(tmp_path) | {
        "MLFLOW_TRACKING_URI": registered, "RAYDISTILL_IMAGES": str(tmp_path / "images"),
    }  # fmt: skip
    with server(environment, tmp_path) as address:

        def ask(**body: Any) -> tuple[int, Any]:
            request = urllib.request.Request(
                f"{address}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request) as answer:
                    return answer.status, json.load(answer)["predictions"]
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)["message"]

        for body in (
            {"inputs": pixels.tolist()},
            {"inputs": texts},
            {"inputs": [texts[0], pixels[1].tolist()]},
            {"instances": texts},
            {"dataframe_records": [{"image": text} for text in texts]},
            {"dataframe_split": {"columns": ["image"], "data": [[picture.tolist()] for picture in pixels]}},
        ):
            status, found = ask(**body)
            assert status == 200, found
            np.testing.assert_allclose(found, logits(pixels), atol=1e-4)
        status, found = ask(inputs=["large.jpg"])
        of_file = decode_image(str(tmp_path / "images" / "large.jpg"), (8, 8), resize=True)[None]
        np.testing.assert_allclose(found, logits(of_file), atol=1e-4)
        status, found = ask(inputs=[texts[0]], params={"top": 1})
        assert (status, found[0][0]["class"]) == (200, ABOUT["classes"][int(logits(pixels)[0].argmax())])

        must = "must be base64 of an image file, or pixels (height, width, 3) from 0 to 255"
        for body, line in (
            ({"inputs": [texts[0], "server.log"]}, "image 1: 'server.log' is neither base64 nor a file in the folder"),
            ({"inputs": ["../server.log"]}, "image 0: '../server.log' is neither base64 nor a file in the folder"),
            ({"inputs": [base64.b64encode(b"import os").decode()]}, "image 0: is none of BMP, GIF, JPEG"),
            ({"inputs": [[[300, 0, 0]]]}, f"image 0: {must}"),
            ({"inputs": 5}, 'images are wanted as {"inputs": [IMAGE, ...]} or in a column "image"'),
            ({"dataframe_records": [{"picture": 1}]}, "images are wanted as "),
        ):
            status, said = ask(**body)
            assert status == 400
            assert said.startswith(line)
            assert "\n" not in said


def test_the_folder_of_a_container(registered: str, tmp_path: Path) -> None:
    """Docker does not run here: what MLflow would build from lies there, and loads where raydistill is not."""
    environment = away(tmp_path) | {"MLFLOW_TRACKING_URI": registered}
    command = [sys.executable, "-m", "mlflow", "models", "generate-dockerfile", "-m", "models:/pets@pareto-knee"]
    command += ["-d", str(tmp_path / "image")]
    told = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    recipe = (tmp_path / "image" / "Dockerfile").read_text()
    assert recipe.startswith("# Build an image")
    assert "COPY model_dir" in recipe
    model = tmp_path / "image" / "model_dir"
    needed = (model / "requirements.txt").read_text().split()
    assert {name.partition("=")[0] for name in needed} == {"mlflow", "torch", "numpy", "pillow"}
    code = (
        "import json, mlflow\n"
        "model = mlflow.pyfunc.load_model('image/model_dir')\n"
        "said = json.load(open('image/model_dir/serving_input_example.json'))['dataframe_split']\n"
        "print(model.predict({'image': said['data'][0][0]}).shape)\n"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert told.stdout == "(1, 3)\n", told.stderr


def test_what_stands_in_the_folder(tmp_path: Path) -> None:
    import mlflow

    export(network(), EXAMPLE, tmp_path / "model", {**ABOUT, "deployed": "2 filters"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    served = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    info = served.metadata
    assert info.metadata == {**ABOUT, "deployed": "2 filters"}
    assert [(spec.name, str(spec.type)) for spec in info.signature.inputs] == [("image", "Any")]
    assert [tuple(spec.shape) for spec in info.signature.outputs] == [(-1, 3)]
    assert [(spec.name, spec.default) for spec in info.signature.params] == [("top", 0)]
    pixels = np.random.default_rng(2).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    np.testing.assert_allclose(served.predict({"image": pixels}), logits(pixels), atol=1e-4)
    example = json.loads((tmp_path / "model" / "serving_input_example.json").read_text())["dataframe_split"]
    near = served.predict({"image": example["data"][0][0]})
    with torch.no_grad():
        true = network()(torch.from_numpy(EXAMPLE[:1])).numpy()
    assert near.shape == true.shape
    # the network itself still comes back, for those who prepare images themselves
    loaded = mlflow.pytorch.load_model(str(tmp_path / "model"))
    np.testing.assert_allclose(loaded(torch.from_numpy(EXAMPLE)).detach().numpy()[:1], true, atol=1e-5)


def test_two_versions_serve_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by the module in its own folder."""
    import mlflow

    from raydistill.tracking import served, serving

    export(network(), EXAMPLE, tmp_path / "old", ABOUT)
    source = serving._source(served).replace('BadImages("there is no image in the request")', 'BadImages("newer")')
    monkeypatch.setattr(serving, "_source", lambda *parts: source)
    export(network(), EXAMPLE, tmp_path / "new", ABOUT)
    for name, line in (("old", "there is no image in the request"), ("new", "newer")):
        with pytest.raises(mlflow.exceptions.MlflowException) as caught:
            mlflow.pyfunc.load_model(str(tmp_path / name)).predict({"image": []})
        assert caught.value.message == line


@pytest.mark.parametrize("channels", ["rgb", "bgr", "grey"])
def test_the_example_is_the_image_that_was_prepared(channels: str) -> None:
    from raydistill.image_file import in_rgb, opened, prepared
    from raydistill.tracking.serving import _png

    count = 1 if channels == "grey" else 3
    seen = {"mean": [0.4, 0.5, 0.6][:count], "std": [0.2, 0.25, 0.3][:count], "image_size": [8, 8]}
    seen["channels"] = channels
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8, 1 if count == 1 else 3), dtype=np.uint8)
    image = prepared(in_rgb(Image.fromarray(np.broadcast_to(pixels, (8, 8, 3)).copy())), seen)
    again = prepared(in_rgb(opened(io.BytesIO(base64.b64decode(_png(image, seen))))), seen)
    np.testing.assert_allclose(again, image, atol=1e-5)


def test_a_network_that_cannot_be_traced_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    with pytest.raises(TrackingError, match=r"^model: torch\.export cannot trace this model"):
        export(Branches(), EXAMPLE, tmp_path / "model", ABOUT)
    assert list(tmp_path.iterdir()) == []
