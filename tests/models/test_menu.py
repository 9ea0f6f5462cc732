"""The menu: names, a user's own factory, and what is said when one is wrong."""

from __future__ import annotations

import pytest
import torch

from raydistill.errors import ConfigError
from raydistill.models import create, names


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path) -> str:
    source = (
        "from torch import nn\n"
        "def net(num_classes, width=4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, num_classes))\n"
        "def wrong(num_classes):\n    return 'no module'\n"
        "value = 3\n"
    )
    (tmp_path / "own_models_of_test.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    return "own_models_of_test"


def test_every_name_builds_a_model_with_the_classes_asked_for() -> None:
    assert names() == ["resnet20_cifar", "resnet32_cifar", "resnet44_cifar", "resnet56_cifar", "simplenet_cifar"]
    for name in names():
        assert create(name, 7).eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_a_users_factory_gets_classes_and_arguments(own: str) -> None:
    model = create(f"{own}:net", 5, {"width": 9})
    assert model(torch.zeros(2, 3, 8, 8)).shape == (2, 5)
    assert model[1].out_features == 9


@pytest.mark.parametrize(
    ("arch", "args", "words"),
    [
        ("simplenet_cifr", {}, ["model.arch", "unknown model", "did you mean 'simplenet_cifar'?"]),
        ("simplenet_cifar", {"widht": 3}, ["num_classes", "widht"]),
        ("{own}:net", {"widht": 3}, ["(num_classes, width)", "did you mean 'width'?"]),
        ("{own}:net", {"num_classes": 3}, ["num_classes from the dataset"]),
        ("{own}:net", {"width": "four"}, ["refuses its arguments"]),
        ("{own}:wrong", {}, ["must return a torch.nn.Module", "'str'"]),
        ("{own}:value", {}, ["callable"]),
        ("{own}:nett", {}, ["did you mean 'net'?"]),
        ("no_such_module_at_all:net", {}, ["cannot import", "PYTHONPATH"]),
    ],
)
def test_a_wrong_model_is_one_line_with_a_way_out(own: str, arch: str, args: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        create(arch.format(own=own), 10, args)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
