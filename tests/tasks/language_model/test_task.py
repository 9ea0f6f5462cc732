"""Perplexity by a second route, carried state, what is refused."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from raydistill import tasks
from raydistill.datasets import DatasetConfig
from raydistill.errors import CheckpointError, ConfigError, DataError
from raydistill.tasks import Loading, TaskConfig, Weights
from raydistill.tasks.feeds import Kept
from raydistill.training import RunConfig, evaluate_checkpoint, fit, read_checkpoint
from tests.tasks.language_model.texts import Counting, Objects, Uniform, folder_of, task_of

HERE = "tests.tasks.language_model.texts"
CPU = torch.device("cpu")
LSTM = {"emsize": 8, "nhid": 8, "dropout": 0.0}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path)


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        "word_lang_model", DatasetConfig(data_dir=str(folder)), model_args=LSTM,
        task=TaskConfig("language_model", {"bptt": 7}), epochs=2, batch_size=8, lr=0.5, momentum=0.0, weight_decay=0.0,
        precision="fp32", device="cpu", threads=1, tensorboard=False, deterministic=True, out_dir=str(tmp_path / "run"),
    )  # fmt: skip


@pytest.mark.parametrize("network", [Uniform, Objects])
def test_a_network_that_knows_nothing_has_the_vocabularys_perplexity(folder: Path, network: type[nn.Module]) -> None:
    task = task_of(folder)
    assert task.vocabulary.size == 4 + 3 + 2 + 2  # nouns, verbs, "the" and "a", end and unknown
    loading = Loading(CPU, 8)
    feed = task.feed("validation", loading)
    found = task.evaluate(network(11), feed, loading)
    assert found["perplexity"] == pytest.approx(11)
    assert found["loss"] == pytest.approx(math.log(11))
    content = (folder / "grammar.valid.txt").read_bytes()
    tokens_a_byte = (len(content.split()) + content.count(b"\n")) / len(content)
    assert found["bits_per_byte"] == pytest.approx(math.log2(11) * tokens_a_byte)
    of_bytes = task_of(folder, tokens="bytes")
    assert of_bytes.evaluate(network(256), of_bytes.feed("test", loading), loading)["bits_per_byte"] == pytest.approx(8)


@pytest.mark.slow
def test_stretches_with_carried_state_say_what_one_long_call_does(folder: Path) -> None:
    task = task_of(folder, "word_lang_model", bptt=6, eval_batch_size=4)
    torch.manual_seed(0)
    network = task.network("word_lang_model", LSTM)
    loading = Loading(CPU, 8)
    feed = Kept(task.feed("validation", loading))
    found = [task.evaluate(network, feed, loading) for _ in range(2)]
    assert found[0] == found[1]  # a batch that is kept begins anew too
    numbers = torch.from_numpy(task.texts["validation"].tokens).long()
    length = (len(numbers) - 1) // 4
    tokens, targets = (numbers[ahead : ahead + 4 * length].view(4, length).T for ahead in (0, 1))
    network.eval()
    with torch.no_grad():
        logits, _ = network(tokens.contiguous())
    by_hand = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
    assert found[0]["loss"] == pytest.approx(float(by_hand), rel=1e-5)
    assert network.training is False
    cut = [functional.cross_entropy(network(b.tokens)[0].flatten(0, 1), b.targets.flatten()) for b in feed.epoch(0)]
    assert float(torch.stack(cut).mean().detach()) != pytest.approx(found[0]["loss"], rel=1e-4)  # of no state carried


def test_the_state_is_detached_and_begins_anew_each_epoch(folder: Path) -> None:
    task = task_of(folder, bptt=100)
    network = Counting(11)
    feed = task.feed("train", Loading(CPU, 4))
    for epoch in range(2):
        for batch in feed.epoch(epoch):
            task.loss(network, batch).backward()
    assert feed.batches > 2
    assert network.seen == [float(step) for step in range(feed.batches)] * 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "args", "task_args"),
    [
        ("word_lang_model", LSTM, {}),
        ("decoder_lm", {"width": 16, "depth": 1, "heads": 2, "dropout": 0.0, "context": 7}, {"tokens": "bytes"}),
    ],
)
def test_a_run_is_what_a_loop_by_hand_gives(
    config: RunConfig, arch: str, args: dict[str, Any], task_args: dict[str, Any]
) -> None:
    run = replace(config, arch=arch, model_args=args, task=TaskConfig("language_model", {"bptt": 7, **task_args}))
    *_, last = fit(run)
    task = task_of(Path(str(config.dataset.data_dir)), arch, bptt=7, **task_args)
    torch.manual_seed(0)
    network = task.network(arch, args)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    numbers = torch.from_numpy(task.texts["train"].tokens).long()
    length = (len(numbers) - 1) // 8
    tokens, targets = (numbers[ahead : ahead + 8 * length].view(8, length) for ahead in (0, 1))
    for _ in range(2):
        hidden = None
        for start in range(0, length, 7):
            piece, wanted = tokens[:, start : start + 7], targets[:, start : start + 7]
            if arch == "decoder_lm":
                logits = network(piece)
            else:
                logits, hidden = network(piece.T, hidden)
                hidden, wanted = tuple(part.detach() for part in hidden), wanted.T
            optimizer.zero_grad()
            functional.cross_entropy(logits.flatten(0, 1), wanted.flatten()).backward()
            optimizer.step()
    state = read_checkpoint(str(last.checkpoint))["model"]
    for name, weight in network.state_dict().items():
        assert torch.allclose(weight, state[name], atol=1e-5), name
    assert last.metrics["perplexity"] < (10 if arch == "word_lang_model" else 100)


@pytest.mark.slow
def test_it_goes_on_where_it_was_and_its_checkpoint_is_tried_on_the_test_part(
    config: RunConfig, tmp_path: Path
) -> None:
    whole = list(fit(config))
    assert whole[-1].metrics["perplexity"] < whole[0].metrics["perplexity"]
    parts = replace(config, out_dir=str(tmp_path / "parts"))
    run = fit(parts)
    first = next(run)
    run.close()
    assert [epoch.metrics for epoch in (first, *fit(parts))] == [epoch.metrics for epoch in whole]
    path = tmp_path / "run/checkpoint.pt"
    content = read_checkpoint(path)
    assert (content["tokens"], content["num_classes"], content["dataset"]) == ("words", 11, "grammar (words)")
    task = task_of(Path(str(config.dataset.data_dir)), "word_lang_model", content, bptt=7)
    tested = evaluate_checkpoint(path, task, "test", "cpu")
    assert list(tested.metrics) == ["perplexity", "bits_per_byte", "loss"]
    assert tested.metrics["perplexity"] == pytest.approx(whole[-1].metrics["perplexity"], rel=0.2)


@pytest.mark.slow
def test_weights_bring_their_vocabulary(config: RunConfig, tmp_path: Path) -> None:
    list(fit(config))
    content = read_checkpoint(tmp_path / "run/checkpoint.pt")
    other = tmp_path / "other"
    other.mkdir()
    (other / "other.txt").write_text("the horse hears a dog\n" * 40)
    task = task_of(other, "word_lang_model", content)
    assert list(task.vocabulary.words) == content["vocabulary"]
    numbers = task.texts["train"].tokens
    assert numbers[1] == content["vocabulary"].index("<unk>")  # the horse
    fresh = task_of(other, "word_lang_model")
    for check in (
        lambda: fresh.check_knows(content, "ckpt"),
        lambda: fresh.wanted_by(Weights("a", {}, content, "ckpt")),
    ):
        with pytest.raises(
            CheckpointError, match=r"ckpt: knows another vocabulary: other \(words\) has 7 words, got '11"
        ):
            check()
    with pytest.raises(
        CheckpointError, match=r"knows another vocabulary: other \(bytes\) has 256 bytes, got '11 words'"
    ):
        task_of(other, "word_lang_model", content, tokens="bytes")
    with pytest.raises(CheckpointError, match=r"ckpt: is of no language model: other"):
        fresh.check_knows({"num_classes": 10}, "ckpt")


@pytest.mark.parametrize(
    ("arch", "args", "error", "says"),
    [
        ("decoder_lm", {"tokens": "word"}, ConfigError, "task.args.tokens: is not known, got 'word'; did you mean"),
        ("decoder_lm", {"bptt": 0}, ConfigError, "task.args.bptt: must be a whole number from 1 up, got 0"),
        ("decoder_lm", {"vocabulary": True}, ConfigError, "task.args.vocabulary: must be a whole number"),
        ("decoder_lm", {"eval_batch_size": 1.5}, ConfigError, "task.args.eval_batch_size: must be a whole number"),
        ("decoder_lm", {"bppt": 3}, ConfigError, "task.args: 'language_model' does not take them (got an"),
        ("resnet20_cifar", {}, ConfigError, "model.arch: must read tokens, this one looks at images"),
        ("word_lang_model", {"batch_first": True}, ConfigError, "task.args.batch_first: of 'word_lang_model' is False"),
        (f"{HERE}:Uniform", {"batch_first": "no"}, ConfigError, "task.args.batch_first: must be true or false, got"),
        ("decoder_lm", {"test": "gone.txt"}, DataError, "task.args.test: no such file in"),
    ],
)  # fmt: skip
def test_arguments_that_are_none_are_one_line(
    folder: Path, arch: str, args: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        tasks.load(TaskConfig("language_model", args), DatasetConfig(data_dir=str(folder)), Weights(arch))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_networks_that_answer_something_else_are_one_line(folder: Path) -> None:
    batch = next(task_of(folder, bptt=6).feed("train", Loading(CPU, 8)).epoch(0))
    task = task_of(folder, bptt=6)
    with pytest.raises(
        ConfigError, match=r"model: must give logits of shape \(\*\(8, 6\), vocabulary\).*got \(6, 8, 11\)"
    ):
        task.loss(lambda tokens: torch.zeros(6, 8, 11), batch)
    with pytest.raises(ConfigError, match=r"model: gives dict, whose logits cannot be told; return logits"):
        task.loss(lambda tokens: {"scores": tokens}, batch)
    longer = task_of(folder, bptt=30)
    with pytest.raises(ConfigError, match=r"model.args.context: sees 20 tokens at a time, got 30; raise context, or"):
        longer.network("decoder_lm", {"context": 20})(*longer.example_input())


def test_two_texts_have_two_fingerprints_wherever_they_lie(folder: Path, tmp_path: Path) -> None:
    before = task_of(folder).fingerprint()
    assert task_of(shutil.copytree(folder, tmp_path / "elsewhere" / "grammar")).fingerprint() == before
    assert before == task_of(folder).fingerprint()
    assert before != task_of(folder, bptt=36).fingerprint()
    file = folder / "grammar.test.txt"
    file.write_text(file.read_text().replace("dog", "cat", 1))
    assert before != task_of(folder).fingerprint()
