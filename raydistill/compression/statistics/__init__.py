"""Statistics of activations, parameters and predictions."""

from raydistill.compression.statistics.channels import ChannelActivations, ChannelRow, activation_table
from raydistill.compression.statistics.confusion import ConfusionMatrix, confusion, confusion_csv, confusion_png
from raydistill.compression.statistics.follow import Activation, Follower
from raydistill.compression.statistics.histograms import ActivationHistograms, Histogram, write_parameter_histograms

__all__ = [
    "Activation",
    "ActivationHistograms",
    "ChannelActivations",
    "ChannelRow",
    "ConfusionMatrix",
    "Follower",
    "Histogram",
    "activation_table",
    "confusion",
    "confusion_csv",
    "confusion_png",
    "write_parameter_histograms",
]
