"""Does `fit` learn a language as a plain PyTorch loop does? The same network, seed, text, batches and epochs.

    python benchmarks/language_model.py --data-dir TEXT

TEXT is a text file (split 80/10/10) or a folder of them. For the LSTM of word_lang_model and for decoder_lm it prints
the validation perplexity of both after each epoch, and their ratio, which must lie within 5 %. The loop is written
out here and shares nothing with raydistill but the network and the numbers of the tokens: its own batches, its own loss
and its own evaluation. Dropout is left out, so that rounding is all that can differ.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.models import create
from raydistill.tasks import TaskConfig, Weights
from raydistill.training import RunConfig, fit

WITHIN = 0.05


@dataclass(frozen=True)
class Case:
    """batch: sequences. bptt: tokens between two detachments. time_first: the network reads (T, B)."""

    arch: str
    model_args: dict[str, Any]
    task_args: dict[str, Any]
    batch: int
    bptt: int
    lr: float
    momentum: float
    time_first: bool


CASES = (
    Case("word_lang_model", {"emsize": 100, "nhid": 100, "dropout": 0.0, "tied": True}, {"vocabulary": 8000},
         20, 35, 2.0, 0.0, True),
    Case("decoder_lm", {"width": 48, "depth": 4, "heads": 2, "dropout": 0.0, "context": 32}, {"tokens": "bytes"},
         16, 32, 0.1, 0.9, False),
)  # fmt: skip


def with_fit(case: Case, options: argparse.Namespace) -> Iterator[float]:
    config = RunConfig(
        case.arch, DatasetConfig(data_dir=options.data_dir), model_args=case.model_args, epochs=options.epochs,
        task=TaskConfig("language_model", {"bptt": case.bptt, **files(options), **case.task_args}), lr=case.lr,
        batch_size=case.batch, momentum=case.momentum, weight_decay=0.0, precision="fp32", device="cpu",
        threads=options.threads, seed=options.seed,
    )  # fmt: skip
    for epoch in fit(config):
        yield epoch.metrics["perplexity"]


def by_hand(case: Case, options: argparse.Namespace) -> Iterator[float]:
    said = TaskConfig("language_model", {**files(options), **case.task_args})
    task: Any = tasks.load(said, DatasetConfig(data_dir=options.data_dir), Weights(case.arch))
    train, held_out = (torch.from_numpy(task.texts[part].tokens).long() for part in ("train", "validation"))
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    network = create(case.arch, task.vocabulary.size, case.model_args)
    optimizer = torch.optim.SGD(network.parameters(), lr=case.lr, momentum=case.momentum)
    for _ in range(options.epochs):
        network.train()
        for loss, _ in losses(network, train, case.batch, case):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        network.eval()
        with torch.no_grad():
            found = [(float(loss) * tokens, tokens) for loss, tokens in losses(network, held_out, 10, case)]
        yield math.exp(sum(nats for nats, _ in found) / sum(tokens for _, tokens in found))


def losses(network: nn.Module, tokens: Tensor, columns: int, case: Case) -> Iterator[tuple[Tensor, int]]:
    """The mean loss of each stretch of the text and its number of tokens."""
    length = (len(tokens) - 1) // columns
    inputs, targets = (tokens[ahead : ahead + columns * length].view(columns, length) for ahead in (0, 1))
    hidden: Any = None
    for start in range(0, length, case.bptt):
        piece, wanted = (side[:, start : start + case.bptt] for side in (inputs, targets))
        if case.time_first:
            logits, hidden = network(piece.T.contiguous(), hidden)
            hidden, wanted = tuple(part.detach() for part in hidden), wanted.T
        else:
            logits = network(piece)
        yield functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()), wanted.numel()


def files(options: argparse.Namespace) -> dict[str, str]:
    named = {part: getattr(options, part) for part in ("train", "validation", "test")}
    return {part: name for part, name in named.items() if name is not None}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    for part in ("train", "validation", "test"):
        parser.add_argument(f"--{part}", help=f"the {part} part's file in the folder")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    good = True
    for case in CASES:
        runs, seconds = [], []
        for run in (with_fit, by_hand):
            begun = time.perf_counter()
            runs.append(list(run(case, options)))
            seconds.append(time.perf_counter() - begun)
        print(f"{case.arch}: validation perplexity\n{'epoch':>6} {'fit':>10} {'plain loop':>11} {'ratio':>8}")
        for epoch, (ours, theirs) in enumerate(zip(*runs, strict=True)):
            print(f"{epoch + 1:>6} {ours:>10.3f} {theirs:>11.3f} {ours / theirs:>8.4f}")
        within = abs(runs[0][-1] / runs[1][-1] - 1) <= WITHIN
        good = good and within
        print(
            f"{'within' if within else 'NOT WITHIN'} {WITHIN:.0%}; seconds {seconds[0]:.0f} and {seconds[1]:.0f}\n",
            flush=True,
        )
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
