from __future__ import annotations

import pytest

from raydistill import models
from raydistill.errors import ConfigError

pytestmark = pytest.mark.slow

DETECTOR = "raydistill.models.detector:detector"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            {"name": "maskrcnn_resnet50"},
            "no such detector, got 'maskrcnn_resnet50'; did you mean 'maskrcnn_resnet50_fpn",
        ),
        ({"weights": "DEFAULT"}, r"\(weights\): is not for the model"),
        ({"min_sized": 64}, r"\(min_sized\): .*takes no such argument; did you mean 'min_size'"),
    ],
)
def test_what_there_is_not_is_one_line(args: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        models.create(DETECTOR, 3, args)


def test_it_has_fresh_weights_for_so_many_classes() -> None:
    network = models.create(DETECTOR, 3, {"name": "ssdlite320_mobilenet_v3_large"})
    shapes = {name: tuple(value.shape) for name, value in network.named_parameters()}
    assert shapes["head.classification_head.module_list.0.1.bias"] == (6 * 3,)
