"""The architectures by name: own ones, and torchvision's, which are looked up only when a name is not an own one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from torch import nn

from raydistill.models import from_torchvision
from raydistill.models.alexnet_bn import AlexNetBN
from raydistill.models.decoder_lm import DecoderLM
from raydistill.models.earlyexit_cifar import EarlyExitResNetCifar
from raydistill.models.mlp import MLP
from raydistill.models.mobilenet import MobileNet
from raydistill.models.neumf import NeuMF
from raydistill.models.plain_cifar import PlainCifar
from raydistill.models.preact_cifar import PreactResNetCifar
from raydistill.models.preact_imagenet import PreactBasicBlock, PreactBottleneck, PreactResNet
from raydistill.models.resnet_cifar import ResNetCifar
from raydistill.models.resnext import ResNeXt101
from raydistill.models.simplenet import simplenet_cifar
from raydistill.models.vgg_cifar import VGGCifar
from raydistill.models.word_lang_model import WordLangModel

Factory = Callable[..., nn.Module]


@dataclass(frozen=True)
class Domain:
    """What a family of models was made for. image_shape: (C, H, W), None where it reads other things: `reads`.

    num_classes: None where it classifies nothing. batch_first: of tokens; they are (B, T), else (T, B).
    """

    image_shape: tuple[int, int, int] | None
    num_classes: int | None
    batch_first: bool = True
    reads: Literal["images", "tokens", "features", "pairs"] = "images"


CIFAR = Domain((3, 32, 32), 10)
IMAGENET = Domain((3, 224, 224), 1000)
WIKITEXT2 = Domain(None, 33_278, reads="tokens")
WIKITEXT2_TIME_FIRST = Domain(None, 33_278, batch_first=False, reads="tokens")
TABLE = Domain(None, None, reads="features")
INTERACTIONS = Domain(None, None, reads="pairs")


def resnet50_earlyexit(num_classes: int = 1000) -> nn.Module:
    from raydistill.models.resnet_earlyexit import EarlyExitResNet50  # it imports torchvision

    return EarlyExitResNet50(num_classes)


_BLOCKS = {20: 3, 32: 5, 44: 7, 56: 9, 110: 18}
_CIFAR: dict[str, Factory] = {
    "simplenet_cifar": simplenet_cifar,
    "plain20_cifar": partial(PlainCifar, 3),
    "plain20_cifar_nobn": partial(PlainCifar, 3, batch_norm=False),
    **{f"resnet{depth}_cifar": partial(ResNetCifar, n) for depth, n in _BLOCKS.items()},
    **{f"resnet{depth}_cifar_earlyexit": partial(EarlyExitResNetCifar, n) for depth, n in _BLOCKS.items()},
    "resnet1202_cifar_earlyexit": partial(EarlyExitResNetCifar, 200),
    **{f"preact_resnet{depth}_cifar": partial(PreactResNetCifar, n) for depth, n in _BLOCKS.items()},
    **{
        f"preact_resnet{depth}_cifar_conv_ds": partial(PreactResNetCifar, n, conv_downsample=True)
        for depth, n in _BLOCKS.items()
    },
    **{f"vgg{depth}_cifar": partial(VGGCifar, depth) for depth in (11, 13, 16, 19)},
    **{f"vgg{depth}_bn_cifar": partial(VGGCifar, depth, batch_norm=True) for depth in (11, 13, 16, 19)},
}
_IMAGENET: dict[str, Factory] = {
    "alexnet_bn": AlexNetBN,
    "mobilenet": MobileNet,
    "mobilenet_075": partial(MobileNet, 0.75),
    "mobilenet_050": partial(MobileNet, 0.5),
    "mobilenet_025": partial(MobileNet, 0.25),
    "preact_resnet18": partial(PreactResNet, PreactBasicBlock, (2, 2, 2, 2)),
    "preact_resnet34": partial(PreactResNet, PreactBasicBlock, (3, 4, 6, 3)),
    "preact_resnet50": partial(PreactResNet, PreactBottleneck, (3, 4, 6, 3)),
    "preact_resnet101": partial(PreactResNet, PreactBottleneck, (3, 4, 23, 3)),
    "preact_resnet152": partial(PreactResNet, PreactBottleneck, (3, 8, 36, 3)),
    "resnet50_earlyexit": resnet50_earlyexit,
    "resnext101_32x4d": ResNeXt101,
}
_TOKENS: dict[str, Factory] = {  # sizes as the language model's tutorial has them
    "word_lang_model": WordLangModel,
    "word_lang_model_medium": partial(WordLangModel, emsize=650, nhid=650, dropout=0.5, tied=True),
    "word_lang_model_large": partial(WordLangModel, emsize=1500, nhid=1500, dropout=0.65, tied=True),
}
OWN: dict[str, tuple[Factory, Domain]] = {
    **{name: (factory, CIFAR) for name, factory in _CIFAR.items()},
    **{name: (factory, IMAGENET) for name, factory in _IMAGENET.items()},
    **{name: (factory, WIKITEXT2_TIME_FIRST) for name, factory in _TOKENS.items()},
    "decoder_lm": (DecoderLM, WIKITEXT2),
    "mlp": (MLP, TABLE),
    "neumf": (NeuMF, INTERACTIONS),
}


class Menu(Mapping[str, Factory]):
    """Name to factory, called as ``factory(num_classes=..., **args)``. Iterating it imports torchvision."""

    def __getitem__(self, name: str) -> Factory:
        return OWN[name][0] if name in OWN else from_torchvision.factory(name)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*OWN, *from_torchvision.names()}))

    def __len__(self) -> int:
        return len({*OWN, *from_torchvision.names()})


MENU = Menu()


def domain(name: str, model_args: Mapping[str, object]) -> Domain:
    """What the model of this name (one of `MENU`) was made for, its arguments considered."""
    if name in OWN:
        return OWN[name][1]
    size = from_torchvision.image_size(name, model_args)
    return Domain((3, *size), IMAGENET.num_classes)
