"""The word_lang_model schedules that Distiller's users have, shortened, on a slice of WikiText-2."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raydistill.datasets import DatasetConfig
from raydistill.schedule import parse_schedule, scale_epochs
from raydistill.tasks import TaskConfig
from raydistill.training import RunConfig, fit

RNN = [f"rnn.weight_{kind}_l{layer}" for kind in ("ih", "hh") for layer in (0, 1)]
FILES = {
    "agp-pruning/word_lang_model.LARGE_70B.schedule_agp.yaml": (0.50, 0.85),
    "agp-pruning/word_lang_model.LARGE_80.schedule_agp.yaml": (0.74, 0.85),
    "agp-pruning/word_lang_model.LARGE_95.schedule_agp.yaml": (0.95, 0.95),
    "baidu-rnn-pruning/word_lang_model.schedule_baidu_rnn.yaml": None,
}


@pytest.fixture(scope="session")
def slice_of_wikitext(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    text = root.parent / "shared" / "data" / "text" / "wikitext2-valid.txt"
    if not text.is_file():
        pytest.skip("WikiText-2 is not beside this checkout")
    file = tmp_path_factory.mktemp("text") / "slice.txt"
    file.write_bytes(text.read_bytes()[:60_000])
    return file


@pytest.mark.slow  # ten epochs each
@pytest.mark.parametrize("file", FILES)
def test_they_run(compat: Path, slice_of_wikitext: Path, file: str) -> None:
    mapping = yaml.safe_load((compat / "distiller_schedules" / file).read_text())
    config = RunConfig(
        "word_lang_model", DatasetConfig(data_dir=str(slice_of_wikitext)),
        model_args={"emsize": 24, "nhid": 24, "dropout": 0.1, "tied": True},
        task=TaskConfig("language_model", {"vocabulary": 400, "bptt": 20}), epochs=10, batch_size=16, lr=1.0,
        momentum=0.0, weight_decay=0.0, precision="fp32", device="cpu", threads=1,
        schedule=parse_schedule(scale_epochs(mapping, 26, 10), file),
    )  # fmt: skip
    epochs = list(fit(config))
    last = epochs[-1]
    assert last.metrics["perplexity"] < 0.5 * 402  # a guess has as much as there are words
    sparsities = [epoch.sparsity for epoch in epochs]
    assert sparsities == sorted(sparsities)
    assert sparsities[0] < sparsities[-1]
    levels = FILES[file]
    if levels is None:  # thresholds that are meant for weights 1,500 wide
        assert all(0.5 < last.layer_sparsity[name] <= 1.0 for name in [*RNN, "encoder.weight"])
    else:
        of_rnn, of_embedding = levels
        assert {name: last.layer_sparsity[name] for name in RNN} == pytest.approx(dict.fromkeys(RNN, of_rnn), abs=1e-3)
        assert last.layer_sparsity["encoder.weight"] == pytest.approx(of_embedding, abs=1e-3)
