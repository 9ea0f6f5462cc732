"""Which item does a user take up next? Told among items that the user never took up; the hit rate selects.

Evaluated as in He et al. 2017 (arXiv 1708.05031, section 4.1): the item that was held out is ranked among 99 others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raydistill import models
from raydistill.datasets.config import DatasetConfig
from raydistill.errors import ABSENT, CheckpointError, ConfigError, Fault
from raydistill.metrics import FRACTION, LOSS, MAX, MIN, Metric
from raydistill.tasks.base import TEST, TRAIN, VALIDATION, Batch, Feed, Loading, Network, Task, Weights
from raydistill.tasks.files import check_no_images
from raydistill.tasks.recommender.feed import EvalFeed, TrainFeed
from raydistill.tasks.recommender.interactions import Interactions, read_interactions
from raydistill.tasks.recommender.negatives import candidates

HIT_RATE, NDCG = "hit_rate_10", "ndcg_10"
_TOP = 10


class Recommender(Task):
    """negatives: pairs that are none for each one of train, others in each epoch. eval_negatives: items beside the held
    out one. split_seed: of those items; they are the same in every run.
    """

    metrics: Mapping[str, Metric] = {
        HIT_RATE: Metric(MAX, FRACTION, "hit rate at 10"),
        NDCG: Metric(MAX, label="NDCG at 10"),
        LOSS: Metric(MIN),
    }

    def __init__(
        self,
        interactions: Interactions,
        name: str = "ratings",
        negatives: int = 4,
        eval_negatives: int = 99,
        split_seed: int = 0,
    ) -> None:
        self.interactions, self.name = interactions, name
        self.negatives, self.eval_negatives, self.split_seed = negatives, eval_negatives, split_seed
        self.trained = interactions.trained
        self.candidates = {
            split: candidates(
                interactions.held_out[split],
                len(interactions.items),
                interactions.seen,
                eval_negatives,
                split_seed,
                place,
            )
            for place, split in enumerate((VALIDATION, TEST))
        }
        left_out = len(interactions.users) - len(interactions.held_out[TEST])
        if left_out:
            self.note = f"{left_out:,} of {len(interactions.users):,} users have fewer than 3 items: none is held out"

    @classmethod
    def check(cls, data: DatasetConfig) -> None:
        check_no_images(data)

    @classmethod
    def load(  # type: ignore[override]  # its arguments are its signature
        cls, data: DatasetConfig, weights: Weights, negatives: int = 4, eval_negatives: int = 99
    ) -> Recommender:
        """data: its data_dir is a MovieLens-format file, or a folder with one."""
        cls.check(data)
        for key, value in (("negatives", negatives), ("eval_negatives", eval_negatives)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(Fault(f"task.args.{key}", "must be a whole number from 1 up", value))
        found, file = read_interactions(data.data_dir)
        task = cls(found, f"{file.resolve().parent.name}/{file.name}", negatives, eval_negatives, data.split_seed)
        return task.wanted_by(weights)

    @property
    def sizes(self) -> dict[str, int]:
        """What factories of networks may ask for."""
        return {"users": len(self.interactions.users), "items": len(self.interactions.items)}

    def network(
        self, arch: str, arguments: Mapping[str, object], where: str = "model.arch", fetch: bool = True
    ) -> nn.Module:
        return models.create(arch, None, arguments, where, fetch, self.sizes)

    def example_input(self, rows: int = 1) -> tuple[Tensor, ...]:
        return (torch.zeros(rows, 2, dtype=torch.int64),)

    def feed(self, split: str, loading: Loading) -> TrainFeed | EvalFeed:
        known = self.interactions
        if split == TRAIN:
            return TrainFeed(known.train, len(known.items), self.trained, self.negatives, loading)
        return EvalFeed(known.held_out[split][:, 0], self.candidates[split], split, loading)

    def loss(self, network: Network, batch: Batch) -> Tensor:
        pairs, labels = batch
        return functional.binary_cross_entropy_with_logits(_scores(network, pairs), labels)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, feed: Feed, loading: Loading) -> Mapping[str, float]:
        """The loss is over the candidates, of which fewer go together than in train. Items of the same score share the
        places that they take, so that a network which cannot tell them apart hits nothing.
        """
        training = network.training
        network.eval()
        sums = torch.zeros(3, dtype=torch.float64, device=loading.device)
        users = 0
        try:
            for index, (pairs, labels) in enumerate(feed.epoch(0)):
                own, _ = feed.rows(index)
                with loading.autocast():
                    scores = _scores(network, pairs)
                by_user, wanted = (part.reshape(-1, 1 + self.eval_negatives)[:own] for part in (scores, labels))
                hit, gain = top_figures(by_user)
                loss = functional.binary_cross_entropy_with_logits(by_user, wanted, reduction="sum")
                sums += torch.stack([hit.sum(), gain.sum(), loss.double() / (1 + self.eval_negatives)])
                users += own
        finally:
            network.train(training)
        every = loading.ranks.gather((sums.cpu(), users))
        total = torch.stack([part[0] for part in every]).sum(0) / max(1, sum(part[1] for part in every))
        return dict(zip((HIT_RATE, NDCG, LOSS), total.tolist(), strict=True))

    def wanted_by(self, weights: Weights, data: DatasetConfig | None = None) -> Recommender:
        if weights.content is not None:
            self.check_knows(weights.content, weights.where)
        return self

    def check_knows(self, content: Mapping[str, Any], where: str) -> None:
        if content.get("plain"):  # nothing but weights: their shapes are all that can be looked at
            return
        known = self.described()
        if not {"user_ids", "item_ids"} <= content.keys():
            raise CheckpointError(
                Fault(where, f"is of no recommender, as {self.name} is", ABSENT, "start from another")
            )
        for key in ("user_ids", "item_ids"):
            if not isinstance(content[key], Tensor) or not torch.equal(content[key].cpu(), known[key]):
                rule = f"knows other {key.partition('_')[0]}s: {self.name} has {len(known[key]):,}"
                raise CheckpointError(Fault(where, rule, content.get("sizes"), "use the data it was trained on"))

    def described(self) -> dict[str, Any]:
        ids = {"user_ids": self.interactions.users, "item_ids": self.interactions.items}
        return {"sizes": self.sizes, **{key: torch.from_numpy(values.copy()) for key, values in ids.items()}}

    def identity(self, data: DatasetConfig) -> dict[str, Any]:
        return {"negatives": self.negatives, "sizes": self.sizes}

    @property
    def nbytes(self) -> int:
        known = self.interactions
        arrays = [known.train, known.seen, self.trained, *known.held_out.values(), *self.candidates.values()]
        return int(np.sum([array.nbytes for array in arrays]))


def top_figures(scores: Tensor) -> tuple[Tensor, Tensor]:
    """(hit, gain) float64 (U,) of scores (U, candidates) whose first column is the item to be found.

    hit: 1 where it is among the first ten. gain: 1 / log2(place + 1) there, its place from 1 (NDCG of one item).
    """
    wanted, others = scores[:, :1], scores[:, 1:]
    place = (others > wanted).sum(1).double() + (others == wanted).sum(1).double() / 2
    hit = (place < _TOP).double()
    return hit, hit / torch.log2(place + 2)


def _scores(network: Network, pairs: Tensor) -> Tensor:
    """Float32 (B,); raises ConfigError where a network gives something else."""
    scores = network(pairs)
    if isinstance(scores, Tensor) and scores.shape == (len(pairs), 1):
        scores = scores[:, 0]
    if not isinstance(scores, Tensor) or scores.shape != (len(pairs),):
        found = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise ConfigError(Fault("model", f"must give a logit for each of {len(pairs)} pairs", found))
    return scores.float()
