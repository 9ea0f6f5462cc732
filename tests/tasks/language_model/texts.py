"""A text with a grammar, and networks of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from raydistill.datasets import DatasetConfig
from raydistill.tasks import Weights
from raydistill.tasks.language_model import LanguageModel

NOUNS, VERBS = ("dog", "cat", "bird", "fish"), ("sees", "hears", "likes")


def sentences(count: int, seed: int = 0) -> str:
    """``the dog sees a bird``: each noun and verb by chance, the rest is certain."""
    draw = np.random.default_rng(seed)
    lines = (f"the {draw.choice(NOUNS)} {draw.choice(VERBS)} a {draw.choice(NOUNS)}" for _ in range(count))
    return "".join(f"{line}\n" for line in lines)


def folder_of(tmp_path: Path, lines: int = 300) -> Path:
    folder = tmp_path / "grammar"
    folder.mkdir()
    for part, share, seed in (("train", 1.0, 1), ("valid", 0.3, 2), ("test", 0.2, 3)):
        (folder / f"grammar.{part}.txt").write_text(sentences(int(share * lines), seed))
    return folder


def task_of(place: Path, arch: str = "decoder_lm", content: Any = None, **args: Any) -> LanguageModel:
    return LanguageModel.load(DatasetConfig(data_dir=str(place)), Weights(arch, content=content, where="ckpt"), **args)


class Uniform(nn.Module):
    """Tells every token with the same chance."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.size = num_classes
        self.logit = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logit.expand(*tokens.shape, self.size)


class Answer:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class Objects(Uniform):
    """Its answer is an object with logits, as Hugging Face's are."""

    def forward(self, tokens: Tensor) -> Answer:  # type: ignore[override]
        return Answer(super().forward(tokens))


class Counting(nn.Module):
    """A state that counts the calls since it was begun; its logits favour that number."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.size = num_classes
        self.scale = nn.Parameter(torch.ones(()))
        self.seen: list[float] = []

    def forward(self, tokens: Tensor, state: dict[str, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        count = torch.zeros(()) if state is None else state["count"]
        assert not count.requires_grad
        self.seen.append(float(count))
        logits = self.scale * count * torch.ones(*tokens.shape, self.size)
        return logits, {"count": count + self.scale}
