"""The menu of pruners, by the class names that schedule files use."""

from raydistill.compression.pruners import structured
from raydistill.compression.pruners.agp import AutomatedGradualPruner
from raydistill.compression.pruners.base import ComposedPruner, Moment, Network, Pruner
from raydistill.compression.pruners.blocks import BlockPruner
from raydistill.compression.pruners.coupled import CoupledPruner
from raydistill.compression.pruners.level import SparsityLevelParameterPruner
from raydistill.compression.pruners.lottery import LotteryTicketPruner
from raydistill.compression.pruners.one_shot import OneShotPruner
from raydistill.compression.pruners.ranked import NMPruner, RankedPruner
from raydistill.compression.pruners.reconstruction import FMReconstructionChannelPruner
from raydistill.compression.pruners.sparse_gpt import SparseGPTPruner
from raydistill.compression.pruners.splicing import SplicingPruner
from raydistill.compression.pruners.threshold import (
    BaiduRNNPruner,
    MagnitudeParameterPruner,
    SensitivityPruner,
    StructureParameterPruner,
)
from raydistill.compression.pruners.wanda import WandaPruner

MENU: dict[str, type[Pruner]] = {
    pruner.__name__: pruner
    for pruner in (
        AutomatedGradualPruner,
        SparsityLevelParameterPruner,
        MagnitudeParameterPruner,
        SensitivityPruner,
        SplicingPruner,
        BaiduRNNPruner,
        StructureParameterPruner,
        structured.L1RankedStructureParameterPruner,
        structured.L1RankedStructureParameterPruner_AGP,
        structured.L2RankedStructureParameterPruner,
        structured.L2RankedStructureParameterPruner_AGP,
        structured.RandomLevelStructureParameterPruner,
        structured.ActivationAPoZRankedFilterPruner,
        structured.ActivationAPoZRankedFilterPruner_AGP,
        structured.ActivationMeanRankedFilterPruner,
        structured.ActivationMeanRankedFilterPruner_AGP,
        structured.GradientRankedFilterPruner,
        structured.GradientRankedFilterPruner_AGP,
        structured.RandomRankedFilterPruner,
        structured.RandomRankedFilterPruner_AGP,
        structured.BernoulliFilterPruner,
        structured.BernoulliFilterPruner_AGP,
        FMReconstructionChannelPruner,
        RankedPruner,
        NMPruner,
        CoupledPruner,
        BlockPruner,
        LotteryTicketPruner,
        WandaPruner,
        SparseGPTPruner,
    )
}

__all__ = [
    "MENU",
    "AutomatedGradualPruner",
    "BaiduRNNPruner",
    "BlockPruner",
    "ComposedPruner",
    "CoupledPruner",
    "FMReconstructionChannelPruner",
    "LotteryTicketPruner",
    "MagnitudeParameterPruner",
    "Moment",
    "Network",
    "NMPruner",
    "OneShotPruner",
    "Pruner",
    "RankedPruner",
    "SensitivityPruner",
    "SparseGPTPruner",
    "SparsityLevelParameterPruner",
    "SplicingPruner",
    "StructureParameterPruner",
    "WandaPruner",
]
