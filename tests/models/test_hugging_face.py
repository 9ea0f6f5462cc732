"""Networks of transformers from a local folder: the weights of the folder, and none of its code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from raydistill import models
from raydistill.errors import ConfigError

pytestmark = pytest.mark.slow  # transformers takes seconds to import
ARCH = "raydistill.models.hugging_face:hugging_face"


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=8,
        num_labels=10,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    return folder


def test_it_is_the_folder_s_network_in_an_engine_s_hands(vit: Path) -> None:
    import transformers

    images = torch.randn(2, 3, 32, 32)
    theirs = transformers.ViTForImageClassification.from_pretrained(vit).eval()
    ours = models.create(ARCH, 10, {"folder": str(vit)}).eval()
    with torch.no_grad():
        assert torch.equal(models.logits_of(ours(images)), theirs(images).logits)
    fresh = models.create(ARCH, 10, {"folder": str(vit), "weights": False})
    assert fresh.state_dict().keys() == ours.state_dict().keys()
    assert not torch.equal(next(fresh.parameters()), next(ours.parameters()))


@pytest.mark.parametrize(
    ("said", "args", "line"),
    [
        (None, {}, "has no config.json that can be read"),
        ({"architectures": ["os.system"], "model_type": "vit"}, {}, "is no network of transformers, got 'os.system'"),
        ({"architectures": ["pipeline"], "model_type": "vit"}, {}, "is no network of transformers, got 'pipeline'"),
        ({"architectures": [], "model_type": "vit"}, {}, "is not said by config.json"),
        (
            {"auto_map": {"AutoModel": "evil.Net"}, "model_type": "mine"},
            {"architecture": "AutoModel"},
            "cannot be loaded",
        ),
        ({"architectures": ["ViTModel"], "model_type": "vit"}, {}, "cannot be loaded"),  # no weights
    ],
)
def test_what_is_wrong_is_one_line(
    said: dict[str, object] | None, args: dict[str, str], line: str, tmp_path: Path
) -> None:
    pytest.importorskip("transformers")
    if said is not None:
        (tmp_path / "config.json").write_text(json.dumps(said))
    (tmp_path / "evil.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ConfigError) as caught:
        models.create(ARCH, None, {"folder": str(tmp_path), **args})
    assert line in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
