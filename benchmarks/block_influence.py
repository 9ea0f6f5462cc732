"""Does a block's influence say what the network loses without it?

    python benchmarks/block_influence.py --data-dir TEXT --checkpoints s0-dense/checkpoint.pt ...

Of each block of small decoders (`benchmarks/one_shot.py` trains them): its influence over 16 batches of training data,
its mean absolute weight, and the perplexity of validation without it, nothing trained afterwards.
"""

from __future__ import annotations

import argparse
import copy
import itertools

import torch

from raydistill import tasks
from raydistill.compression.evidence import BlockInfluence
from raydistill.compression.ranks import Ranks
from raydistill.compression.thinning.depth import blocks_of
from raydistill.datasets import DatasetConfig
from raydistill.tasks import TRAIN, VALIDATION, Loading, TaskConfig, Weights
from raydistill.training import load_model

BATCHES = 16


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--checkpoints", nargs="+", required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    said = TaskConfig("language_model", {"tokens": "bytes", "bptt": 64, "eval_batch_size": 64})
    task = tasks.load(said, DatasetConfig(data_dir=options.data_dir), Weights("decoder_lm"))
    loading = Loading(torch.device("cpu"), 16)
    validation = task.feed(VALIDATION, loading)
    for number, checkpoint in enumerate(options.checkpoints):
        model = load_model(checkpoint, "decoder_lm").eval()
        offered = blocks_of(model, task.example_input())
        seen = BlockInfluence(offered.innermost, model, Ranks())
        seen.start()
        for batch in itertools.islice(task.feed(TRAIN, loading).epoch(0), BATCHES):
            model(*task.inputs(batch))
        seen.stop()
        influence = seen.result()
        dense = task.evaluate(model, validation, loading)["perplexity"]
        print(f"network {number}: perplexity {dense:.3f}; block: influence, mean |weight|, perplexity without it")
        for name in offered.innermost:
            without = copy.deepcopy(model)
            names = offered.parameters[name]
            size = torch.cat([without.get_parameter(own).abs().flatten() for own in names if "weight" in own]).mean()
            for own in names:
                without.get_parameter(own).zero_()
            found = task.evaluate(without, validation, loading)["perplexity"]
            print(f"  {name} {float(influence[name]):.4f} {float(size):.4f} {found:.3f}", flush=True)


if __name__ == "__main__":
    main()
