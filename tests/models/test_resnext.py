"""ResNeXt, against torchvision's ResNet of its shape."""

from __future__ import annotations

import pytest
import torch
from torchvision.models.resnet import Bottleneck, ResNet

from raydistill.models import create
from tests.models.conftest import Meta
from tests.models.norms import shuffle_norms


@pytest.mark.slow
def test_resnext_computes_what_torchvisions_resnet_of_its_shape_computes(meta: Meta) -> None:
    torch.manual_seed(3)
    ours = create("resnext101_32x4d", 10).eval()
    shuffle_norms(ours)
    with torch.device("meta"):
        theirs = ResNet(Bottleneck, [3, 4, 23, 3], num_classes=10, groups=32, width_per_group=4)
    state = dict(zip(theirs.state_dict(), ours.state_dict().values(), strict=True))
    theirs.load_state_dict(state, assign=True)
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        a, b = ours(images), theirs.eval()(images)
    assert float(a.std()) > 0
    assert torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))
    assert meta.count("resnext101_32x4d") == 44_038_848  # as the schedule's comment has it
