"""Statistics of every activation over the validation split, as files."""

from __future__ import annotations

from pathlib import Path

from raydistill.analysis.network import Network
from raydistill.compression.statistics import ActivationHistograms, ChannelActivations, activation_table
from raydistill.compression.statistics.channels import STATISTICS, ChannelRow
from raydistill.compression.summaries.rows import csv_text
from raydistill.files import write_atomically
from raydistill.tasks import VALIDATION, Loading, Task

CHANNELS, HISTOGRAMS = "act_stats.csv", "act_histograms.csv"


def write_activations(network: Network, task: Task, loading: Loading, folder: Path) -> int:
    """A row for each channel of each layer, and each layer's histogram; returns on how many samples.

    task: as the network wants it.
    """
    model = network.model.to(loading.device)
    feed = task.feed(VALIDATION, loading)
    with ChannelActivations(model, statistics=tuple(STATISTICS)) as collector, ActivationHistograms(model) as drawn:
        task.evaluate(model, feed, loading)
    write_atomically(folder / CHANNELS, csv_text(ChannelRow, activation_table(collector)))
    lines = ["layer,from,to,count"]
    for name in drawn.seen():
        found = drawn.histogram(name)
        edges = found.edges.tolist()
        cells = zip(edges[:-1], edges[1:], found.counts.tolist(), strict=True)
        lines += [f"{name},{low:g},{high:g},{count:.0f}" for low, high, count in cells]
    write_atomically(folder / HISTOGRAMS, "\n".join(lines) + "\n")
    return feed.samples
