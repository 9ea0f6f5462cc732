"""torchvision's networks whose code ties channels to each other in ways of its own, built small."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.deployment import deploy
from raydistill.compression.masks import MaskSet
from raydistill.compression.pruners import CoupledPruner, Moment
from raydistill.compression.rates import PolicyTime
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning.coupling import couplings
from tests.compression.thinning.conftest import relative, unsettled


def shufflenet() -> nn.Module:
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    return ShuffleNetV2([2, 3, 2], [8, 16, 32, 64, 64], num_classes=5)


@torch.no_grad()
def pruned(model: nn.Module, images: Tensor, level: float, structures: Sequence[str] = ()) -> list[str]:
    """Mask so much of every coupling; the kinds of these."""
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    given = {"structures": list(structures)} if structures else {}
    pruner = CoupledPruner("half", weights=names, final_sparsity=level, **given)
    pruner.bind(model, (images,))
    masks = MaskSet(model)
    weights = {name: model.get_parameter(name).data for name in pruner.weights}
    for name, mask in pruner.masks(weights, Moment(PolicyTime(9, 0, 10, 1))).items():
        masks.set(name, mask)
    masks.apply()
    return [each.kind for each in pruner.couplings]


def through_onnx(model: nn.Module, images: Tensor) -> Tensor:
    """What its exported file gives once it is read again."""
    runtime = pytest.importorskip("onnxruntime")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        program = torch.onnx.export(model, (images,), dynamo=True, verbose=False)
    assert program is not None
    session = runtime.InferenceSession(program.model_proto.SerializeToString())
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def narrowed(make: Callable[[], nn.Module], level: float = 0.5, structures: Sequence[str] = ()) -> nn.Module:
    """Thinned where so much is masked: it gives what the masked one gives, in torch, from ONNX and built anew."""
    torch.manual_seed(0)
    model, images = unsettled(make()), torch.randn(2, 3, 64, 64)
    assert pruned(model, images, level, structures)
    with torch.no_grad():
        expected = model(images)
    changes = deploy(model, (images,)).changes
    with torch.no_grad():
        assert relative(expected, model(images)) < 1e-5
    assert relative(expected, through_onnx(model, images)) < 1e-5
    again = make()
    replay(again, structure_from(structure_state(changes)))
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert relative(expected, again.eval()(images)) < 1e-5
    return model


@pytest.mark.slow
def test_of_a_shufflenet_goes_what_is_not_shuffled() -> None:
    model = narrowed(shufflenet)
    for stage, width in ((model.stage2, 8), (model.stage3, 16), (model.stage4, 32)):
        for unit in stage:
            assert unit.branch2[0].out_channels == unit.branch2[3].groups == width // 2
            assert unit.branch2[5].out_channels == width
    assert model.conv5[0].out_channels == 32
    refused = couplings(shufflenet().eval(), torch.zeros(1, 3, 64, 64)).refused
    assert "shuffled" in refused["stage3.1.branch2.5"]
    assert len([why for why in refused.values() if "shuffled" in why]) == 10
