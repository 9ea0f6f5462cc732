"""torchvision's networks whose code ties channels to each other in ways of its own, built small."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

from raydistill.compression.deployment import deploy
from raydistill.compression.pruners import CoupledPruner
from raydistill.compression.structure import replay, structure_from, structure_state
from raydistill.compression.thinning.coupling import couplings
from tests.compression.thinning.conftest import masked_at_its_end, relative, unsettled

pytestmark = pytest.mark.slow


def shufflenet() -> nn.Module:
    from torchvision.models.shufflenetv2 import ShuffleNetV2

    return ShuffleNetV2([2, 3, 2], [8, 16, 32, 64, 64], num_classes=5)


def swin() -> nn.Module:
    from torchvision.models.swin_transformer import SwinTransformer

    return SwinTransformer([4, 4], 16, [2, 1], [4, 4], [4, 4], num_classes=5)


def swin_v2() -> nn.Module:
    from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2

    options = {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    return SwinTransformer([4, 4], 16, [2, 1], [4, 4], [4, 4], num_classes=5, **options)


def maxvit() -> nn.Module:
    from torchvision.models.maxvit import MaxVit

    return MaxVit((64, 64), 8, 4, [16, 32], [1, 2], 4, stochastic_depth_prob=0.0, num_classes=5)


@torch.no_grad()
def pruned(model: nn.Module, images: Tensor, level: float, structures: Sequence[str] = ()) -> list[str]:
    """Mask so much of every coupling; the kinds of these."""
    names = [name for name, parameter in model.named_parameters() if parameter.dim() > 1]
    given = {"structures": list(structures)} if structures else {}
    pruner = CoupledPruner("half", weights=names, final_sparsity=level, **given)
    masked_at_its_end(model, pruner, images)
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
    model, images = unsettled(make()), torch.randn(2, 3, 64, 64) + 3 * torch.randn(2, 3, 1, 1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, (parameter.numel() / len(parameter)) ** -0.5)
        assert pruned(model, images, level, structures)
        expected = model(images)
    assert (expected[0] - expected[1]).abs().max() > 0.01 * expected.abs().max(), "whatever goes, it gives the same"
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


@pytest.mark.parametrize("make", [swin, swin_v2])
def test_of_a_swin_go_heads_and_hidden_neurons(make: Callable[[], nn.Module]) -> None:
    model = narrowed(make)
    for stage, width in ((model.features[1], 16), (model.features[3], 32)):
        for block in stage:
            assert (block.attn.num_heads, block.mlp[0].out_features) == (2, 2 * width)
            assert block.attn.qkv.weight.shape == (3 * width // 2, width)
            assert block.attn.proj.weight.shape == (width, width // 2)
            per_head = block.attn.cpb_mlp[2].weight if make is swin_v2 else block.attn.relative_position_bias_table.T
            assert len(per_head) == 2


@pytest.mark.parametrize("make", [swin, swin_v2])
def test_width_of_a_swin_goes_through_merged_patches(make: Callable[[], nn.Module]) -> None:
    model = narrowed(make, 0.25, ["Embedding"])
    assert model.features[0][0].out_channels == 12
    assert model.features[2].reduction.weight.shape == (24, 4 * 12)
    assert model.features[1][0].attn.qkv.weight.shape == (48, 12)
    assert model.head.in_features == 24


def test_of_a_maxvit_go_heads_hidden_neurons_and_expansions() -> None:
    model = narrowed(maxvit)
    for block, width in ((model.blocks[0], 16), (model.blocks[1], 32)):
        for layer in block.layers:
            convs, windows, grid = layer.layers
            assert convs.layers.conv_a[0].out_channels == convs.layers.conv_b[0].groups == 2 * width
            for part in (windows, grid):
                assert part.attn_layer[1].n_heads == width // 8
                assert part.attn_layer[1].relative_position_bias_table.shape[1] == width // 8
                assert part.mlp_layer[1].out_features == 2 * width


def test_width_of_a_maxvit() -> None:
    model = narrowed(maxvit, 0.25, ["Embedding"])
    assert [block.layers[0].layers.MBconv.proj[1].out_channels for block in model.blocks] == [12, 24]
    assert model.classifier[3].in_features == 24
