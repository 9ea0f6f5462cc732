"""Words or bytes of a text, each to be told from those before it; perplexity selects.

Truncated backpropagation: a network that gives (logits, hidden state) gets the state, detached, with its next call.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import models
from raydistill.datasets.config import DatasetConfig
from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault, close_match
from raydistill.metrics import LOSS, MIN, Metric
from raydistill.models.menu import MENU
from raydistill.tasks.base import TRAIN, Batch, Feed, Loading, Network, Task, Weights
from raydistill.tasks.files import check_no_images
from raydistill.tasks.fingerprint import fingerprint
from raydistill.tasks.language_model.feed import Stretch, Text, TextFeed
from raydistill.tasks.language_model.parts import find_parts, read_parts
from raydistill.tasks.language_model.state import OfLength, Remembering, detached, told_apart
from raydistill.tasks.language_model.vocabulary import KINDS, WORDS, Vocabulary

PERPLEXITY, BITS = "perplexity", "bits_per_byte"
_MOST_NATS = 700.0  # exp of more is no float any longer


class LanguageModel(Task):
    """texts: by split. bptt: tokens between two detachments. batch_first: tokens are (B, T), else (T, B).

    eval_batch_size: sequences that validation and test are read in, whatever the batch size: fewer see longer contexts.
    """

    metrics: Mapping[str, Metric] = {
        PERPLEXITY: Metric(MIN, label="perplexity"),
        BITS: Metric(MIN, label="bits per byte"),
        LOSS: Metric(MIN, label="loss (nats a token)"),
    }

    def __init__(
        self,
        texts: Mapping[str, Text],
        vocabulary: Vocabulary,
        name: str = "text",
        bptt: int = 35,
        eval_batch_size: int = 10,
        batch_first: bool = True,
    ) -> None:
        self.texts, self.vocabulary, self.name = texts, vocabulary, name
        self.bptt, self.eval_batch_size, self.batch_first = bptt, eval_batch_size, batch_first

    @classmethod
    def check(cls, data: DatasetConfig) -> None:
        check_no_images(data)

    @classmethod
    def load(  # type: ignore[override]  # its arguments are its signature
        cls,
        data: DatasetConfig,
        weights: Weights,
        tokens: str = WORDS,
        vocabulary: int | None = None,
        bptt: int = 35,
        eval_batch_size: int = 10,
        batch_first: bool | None = None,
        train: str | None = None,
        validation: str | None = None,
        test: str | None = None,
    ) -> LanguageModel:
        """data: its data_dir is a text file, or a folder. tokens: ``words`` or ``bytes``. vocabulary: how many words
        are kept. train, validation, test: names of files in the folder. batch_first: of a network of one's own.

        The vocabulary is that of the weights, where they have one, else of the train part.
        """
        cls.check(data)
        if tokens not in KINDS:
            raise ConfigError(Fault("task.args.tokens", "is not known", tokens, close_match(tokens, KINDS)))
        for key, value in (("vocabulary", vocabulary), ("bptt", bptt), ("eval_batch_size", eval_batch_size)):
            _check_count(key, value)
        first = _layout(weights.arch, batch_first)
        said = {"train": train, "validation": validation, "test": test}
        files = find_parts(data.data_dir, {part: name for part, name in said.items() if name is not None})
        contents = read_parts(files)
        known = Vocabulary.of_checkpoint(weights.content, weights.where) if weights.content is not None else None
        if known is None or known.tokens != tokens:  # which `check_knows` refuses
            known = Vocabulary.of(contents[TRAIN], tokens, str(files[TRAIN]), vocabulary)
        texts = {}
        for part, content in contents.items():
            numbers = known.numbers(content, str(files[part]))
            if len(numbers) < 2:
                raise ConfigError(
                    Fault(str(files[part]), f"has no text for the {part} part", ABSENT, "give a longer one")
                )
            texts[part] = Text(numbers, len(content) / len(numbers), str(files[part]))
        name = f"{Path(str(data.data_dir)).resolve().name} ({tokens})"
        task = cls(texts, known, name, bptt, eval_batch_size, first)
        if weights.content is not None:
            task.check_knows(weights.content, weights.where)
        return task

    def network(
        self, arch: str, arguments: Mapping[str, object], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        return models.create(arch, self.vocabulary.size, arguments, where, fetch)

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        shape = (rows, self.bptt) if self.batch_first else (self.bptt, rows)
        return (torch.zeros(shape, dtype=torch.int64),)

    def feed(self, split: str, loading: Loading) -> TextFeed:
        columns = loading.batch_size if split == TRAIN else self.eval_batch_size
        return TextFeed(self.texts[split], split, loading, columns, self.bptt, self.batch_first)

    def inputs(self, batch: Batch) -> tuple[Any, ...]:
        return (batch.tokens,)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        """Nats a token."""
        return _loss(network, batch)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        """bits_per_byte: of the file's bytes, at the average length of its tokens; a word that stands for unknown ones
        counts as told."""
        training = network.training
        network.eval()
        nats = torch.zeros((), dtype=torch.float64, device=loading.device)
        tokens, size = 0, 0.0
        try:
            for index, batch in enumerate(feed.epoch(0)):
                own, _ = feed.rows(index)
                with loading.autocast():
                    loss = _loss(network, batch)
                nats += loss.double() * own
                tokens, size = tokens + own, size + own * batch.bytes_a_token
        finally:
            network.train(training)
        parts = loading.ranks.gather((float(nats), tokens, size))
        nats_of_all, tokens_of_all, size = (sum(part[place] for part in parts) for place in range(3))
        loss_of_all = nats_of_all / max(1.0, tokens_of_all)
        return {
            PERPLEXITY: math.exp(min(loss_of_all, _MOST_NATS)) if math.isfinite(loss_of_all) else loss_of_all,
            BITS: nats_of_all / math.log(2) / size if size else 0.0,
            LOSS: loss_of_all,
        }

    def judge(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        """No state is carried from stretch to stretch, and each is read at full length."""
        return self.evaluate(OfLength(network, self.bptt, 1 if self.batch_first else 0), feed, loading)

    def wanted_by(self, weights: Weights, data: DatasetConfig | None = None) -> LanguageModel:
        if weights.content is not None:
            self.check_knows(weights.content, weights.where)
        return self

    def check_knows(self, content: Mapping[str, object], where: str) -> None:
        if content.get("plain"):  # nothing but weights: their shapes are all that can be looked at
            return
        known = Vocabulary.of_checkpoint(content, where)
        if known == self.vocabulary:
            return
        mine = f"{self.name} has {self.vocabulary.size:,} {self.vocabulary.tokens}"
        if known is None:
            raise CheckpointError(Fault(where, f"is of no language model: {mine}", ABSENT, "start from another one"))
        rule = f"knows another vocabulary: {mine}"
        raise CheckpointError(Fault(where, rule, f"{known.size:,} {known.tokens}", "use the text it was trained on"))

    def teach(self, teacher: nn.Module, weights: Weights) -> nn.Module:
        """Its state is its own: the student's is of another size, or another meaning."""
        return Remembering(teacher)

    def described(self) -> dict[str, Any]:
        return self.vocabulary.described()

    def identity(self, data: DatasetConfig) -> dict[str, Any]:
        return {"tokens": self.vocabulary.tokens, "bptt": self.bptt, "vocabulary": self.vocabulary.size}

    @property
    def nbytes(self) -> int:
        return sum(text.tokens.nbytes for text in self.texts.values())

    def fingerprint(self) -> str:
        """Wherever the files lie."""
        return fingerprint({**vars(self), "texts": {part: text.tokens for part, text in self.texts.items()}})


def _loss(network: Network, batch: Stretch) -> Tensor:
    state = None if batch.begins else batch.carried.state
    output = network(batch.tokens) if state is None else network(batch.tokens, state)
    logits, state = told_apart(output)
    batch.carried.state = detached(state)
    if logits.shape[:-1] != batch.tokens.shape:
        rule = f"must give logits of shape (*{tuple(batch.tokens.shape)}, vocabulary) for its tokens"
        way_out = "see task.args.batch_first: (B, T) where it is true, else (T, B)"
        raise ConfigError(Fault("model", rule, tuple(logits.shape), way_out))
    return functional.cross_entropy(logits.flatten(0, -2).float(), batch.targets.flatten())


def _layout(arch: str, said: bool | None) -> bool:
    """Whether a network reads (B, T); raises ConfigError where it reads no tokens."""
    if said is not None and not isinstance(said, bool):
        raise ConfigError(Fault("task.args.batch_first", "must be true or false", said))
    if ":" in arch or arch not in MENU:  # whoever builds it says what is wrong with a name
        return said is not False
    made_for = models.domain(arch, {})
    if made_for.image_shape is not None:
        way_out = "use decoder_lm, word_lang_model, or one of your own (pkg.mod:factory)"
        raise ConfigError(Fault("model.arch", "must read tokens, this one looks at images", arch, way_out))
    if said not in (None, made_for.batch_first):
        way_out = "leave it out, it is for networks of your own"
        raise ConfigError(Fault("task.args.batch_first", f"of '{arch}' is {made_for.batch_first}", said, way_out))
    return made_for.batch_first


def _check_count(key: str, value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigError(Fault(f"task.args.{key}", "must be a whole number from 1 up", value))
