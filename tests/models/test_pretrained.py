"""Published weights: out of torch's cache or over real sockets of this machine; never a pickle, never a silent gap."""

from __future__ import annotations

import hashlib
import pickle
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from raydistill.errors import CheckpointError, ConfigError
from raydistill.models import create, load_pretrained, pretrained
from tests.serving import files, served


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch's folder of downloads, empty; what is not in it cannot be had: the proxy refuses."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(urllib.request, "_opener", None)  # it keeps the proxies it was made with
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def publish(cache: Path, name: str, weights: str = "IMAGENET1K_V1", **args: object) -> dict[str, torch.Tensor]:
    """A network of torchvision's own making in the cache, under the file name of published weights."""
    torch.manual_seed(99)
    state = torchvision.models.get_model(name, **args).state_dict()
    url = torchvision.models.get_model_weights(name)[weights].url
    torch.save(state, cache / url.rsplit("/", 1)[1])
    return state


def same(model: torch.nn.Module, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_true_means_the_first_ones_that_were_published(cache: Path) -> None:
    state = publish(cache, "squeezenet1_1")
    assert same(create("squeezenet1_1", 1000, {"pretrained": True}), state)
    assert same(create("squeezenet1_1", 1000, {"pretrained": "IMAGENET1K_V1"}), state)
    assert not same(create("squeezenet1_1", 1000, {"pretrained": False}), state)
    assert not same(create("squeezenet1_1", 1000, {"pretrained": True}, fetch=False), state)


@pytest.mark.slow
def test_another_of_the_published_ones_by_name(cache: Path) -> None:
    publish(cache, "mobilenet_v2")
    second = publish(cache, "mobilenet_v2", "IMAGENET1K_V2", width_mult=1.0, dropout=0.5)
    second["classifier.1.bias"] += 1
    torch.save(second, cache / torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V2.url.rsplit("/", 1)[1])
    model = create("mobilenet_v2", 1000)
    assert load_pretrained(model, "mobilenet_v2", "IMAGENET1K_V2") == "IMAGENET1K_V2"
    assert same(model, second)


def test_an_architecture_without_first_ones_takes_its_own(cache: Path) -> None:
    assert pretrained.published("vit_h_14", True, "here").name == "IMAGENET1K_SWAG_E2E_V1"
    assert pretrained.published("resnet50", True, "here").name == "IMAGENET1K_V1"


@pytest.mark.slow
def test_with_other_classes_the_last_layer_stays_as_the_seed_made_it(cache: Path) -> None:
    state = publish(cache, "shufflenet_v2_x0_5")
    torch.manual_seed(5)
    model = create("shufflenet_v2_x0_5", 10, {"pretrained": True})
    torch.manual_seed(5)
    fresh = create("shufflenet_v2_x0_5", 10)
    for key, value in model.state_dict().items():
        expected = fresh.state_dict()[key] if key.startswith("fc.") else state[key]
        assert torch.equal(value, expected), key


@pytest.mark.slow
def test_files_of_before_zip_and_with_a_version_load_too(cache: Path) -> None:
    state = publish(cache, "mnasnet0_5")
    file = cache / torchvision.models.MNASNet0_5_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    torch.save(state, file, _use_new_zipfile_serialization=False)
    assert same(create("mnasnet0_5", 1000, {"pretrained": True}), state)


@pytest.mark.slow
def test_densenets_old_names_are_read_as_the_new_ones(cache: Path) -> None:
    state = publish(cache, "densenet121")
    old = {key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2."): value for key, value in state.items()}
    old = {key.replace("conv1.", "conv.1.").replace("conv2.", "conv.2."): value for key, value in old.items()}
    assert sum(key not in state for key in old) > 500
    torch.save(old, cache / torchvision.models.DenseNet121_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    assert same(create("densenet121", 1000, {"pretrained": True}), state)


@pytest.mark.slow
def test_auxiliary_heads_are_left_in_the_file_and_the_input_is_scaled_as_they_were_trained(cache: Path) -> None:
    state = publish(cache, "googlenet", init_weights=False, aux_logits=True)
    assert any(key.startswith("aux1.") for key in state)
    model = create("googlenet", 1000, {"pretrained": True, "init_weights": False})
    assert same(model, state)
    assert model.transform_input is True
    assert create("googlenet", 10, {"pretrained": True, "init_weights": False}, fetch=False).transform_input is True
    assert create("googlenet", 10, {"init_weights": False}).transform_input is False


@pytest.mark.parametrize(
    ("arch", "value", "words"),
    [
        ("simplenet_cifar", True, "no published weights of 'simplenet_cifar'; train it"),
        ("resnext101_32x4d", True, "no published weights of 'resnext101_32x4d'"),
        (
            "resnet18",
            "IMAGENET1K_V7",
            r"no such published weights, got 'IMAGENET1K_V7'; did you mean 'IMAGENET1K_V1'\?",
        ),
        ("resnet18", 3, "must be true or the name of published weights, got 3"),
    ],
)
def test_weights_that_there_are_not(cache: Path, arch: str, value: object, words: str) -> None:
    for fetch in (True, False):
        with pytest.raises(ConfigError, match=words) as caught:
            create(arch, 10, {"pretrained": value}, "space.yaml: model.arch", fetch)
        assert str(caught.value).startswith("space.yaml: model.arch pretrained: ")
        assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_weights_of_another_shape_are_refused(cache: Path) -> None:
    publish(cache, "shufflenet_v2_x0_5")
    model = create("shufflenet_v2_x1_0", 1000)
    with pytest.raises(ConfigError, match=r"differs in 'stage2\.0\.branch1\.2\.weight' from the published weights"):
        load_pretrained(model, "shufflenet_v2_x0_5")


def test_weights_for_larger_images_say_for_which(cache: Path) -> None:
    model = torch.nn.Module()
    model.pos_embedding = torch.nn.Parameter(torch.zeros(1, 197, 8))  # 14 * 14 patches and the class token
    url = torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1.url
    torch.save({"pos_embedding": torch.zeros(1, 577, 8)}, cache / url.rsplit("/", 1)[1])
    with pytest.raises(ConfigError, match=r"differs in 'pos_embedding' from .* 'vit_b_16' for images of 384x384; "):
        load_pretrained(model, "vit_b_16", "IMAGENET1K_SWAG_E2E_V1")


@pytest.mark.slow
def test_weights_that_lack_a_layer_are_refused(cache: Path) -> None:
    state = publish(cache, "squeezenet1_1")
    del state["features.3.squeeze.bias"]
    torch.save(state, cache / torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1])
    with pytest.raises(ConfigError, match=r"differs in 'features\.3\.squeeze\.bias'"):
        create("squeezenet1_1", 10, {"pretrained": True})


@pytest.mark.slow
def test_no_network_is_one_line_that_says_where_the_file_belongs(cache: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        create("squeezenet1_1", 10, {"pretrained": True})
    text = str(caught.value)
    assert "\n" not in text
    assert "'squeezenet1_1': its published weights cannot be downloaded" in text
    assert f"put {torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url} at {cache}" in text
    assert list(cache.iterdir()) == []


class Evil:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("ran_code"),))


@pytest.mark.parametrize("content", [b"", b"no weights at all", pickle.dumps(Evil()), b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named_and_runs_nothing(
    cache: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    file = cache / torchvision.models.SqueezeNet1_1_Weights.IMAGENET1K_V1.url.rsplit("/", 1)[1]
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{file.name}: (is damaged|names 'pathlib).*; delete it"):
        create("squeezenet1_1", 10, {"pretrained": True})
    assert not Path("ran_code").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    folder = tmp_path / "served"
    folder.mkdir()
    with served(files(folder)) as port:
        yield folder, f"http://127.0.0.1:{port}"


def test_a_download_is_checked_against_the_hash_in_its_name(cache: Path, server: tuple[Path, str]) -> None:
    folder, address = server
    content = b"weights" * 1000
    good = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    for name in (good, "net-00000000.pth"):
        (folder / name).write_bytes(content)
    pretrained._download(f"{address}/{good}", cache / good, "here")
    assert (cache / good).read_bytes() == content
    for name in ("net-00000000.pth", "net-11111111.pth"):  # another hash; not there
        with pytest.raises(CheckpointError, match="here: its published weights cannot be downloaded"):
            pretrained._download(f"{address}/{name}", cache / name, "here")
    assert [file.name for file in cache.iterdir()] == [good]


def test_a_server_that_never_answers_is_given_up(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(pretrained, "PATIENCE_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/net-00000000.pth"
        with pytest.raises(CheckpointError, match="cannot be downloaded"):
            pretrained._download(url, cache / "net-00000000.pth", "here")
