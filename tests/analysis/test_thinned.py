from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raydistill.analysis.network import Network, read_network
from raydistill.analysis.thinned import write_thinned
from raydistill.compression.structure import structure_from
from raydistill.training.checkpoint import read_checkpoint


@pytest.mark.slow
def test_what_is_written_answers_as_the_masked_network_does_and_says_how_it_was_made(
    network: Network, tmp_path: Path
) -> None:
    images = torch.randn(4, 3, 32, 32)
    expected = read_network(network.path).model(images)
    report = write_thinned(network, tmp_path / "deep" / "thinned.pt")
    assert report.removed == {"conv2": 8}
    again = read_network(tmp_path / "deep" / "thinned.pt")
    assert again.model.conv2.weight.shape == (8, 6, 5, 5)
    torch.testing.assert_close(again.model(images), expected, atol=1e-4, rtol=1e-4)
    content = read_checkpoint(tmp_path / "deep" / "thinned.pt")
    (change,) = structure_from(content["structure"])
    assert (change,) == report.changes
    assert content["scheduler"]["masks"]["conv2.weight"].shape == (8, 6, 5, 5)
    assert content["history"]


@pytest.mark.slow
def test_of_a_file_that_says_nothing_of_its_structure_the_record_is_kept_too(network: Network, tmp_path: Path) -> None:
    content = {key: value for key, value in network.content.items() if key != "structure"}
    report = write_thinned(replace(network, content=content), tmp_path / "thinned.pt")
    assert structure_from(read_checkpoint(tmp_path / "thinned.pt")["structure"]) == report.changes
    read_network(tmp_path / "thinned.pt")


@pytest.mark.slow
def test_thinned_again_nothing_more_goes(network: Network, tmp_path: Path) -> None:
    write_thinned(network, tmp_path / "once.pt")
    report = write_thinned(read_network(tmp_path / "once.pt"), tmp_path / "twice.pt")
    assert report.removed == {}
    assert read_network(tmp_path / "twice.pt").model.conv2.weight.shape == (8, 6, 5, 5)
