"""Every schedule file that users have, against its architecture: names, shapes and counts."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.compression.compat_schedules import ARCHITECTURES
from tests.models.conftest import Meta

ROW = re.compile(r"^#\s*\|\s*[\d.]+ \| (\S+)\s*\| \(([\d, ]+)\)")
TOTAL = re.compile(r"^#\s*\|\s*[\d.]+ \| Total sparsity:\s*\| -\s*\|\s*(\d+)")
# Files whose networks were thinned when their comment was written: their shapes are smaller than the model's.
THINNED = {
    "agp-pruning/resnet20_filters.bn_fold.schedule_agp.yaml",
    "agp-pruning/resnet20_filters.schedule_agp_2.yaml",
    "agp-pruning/resnet20_filters.schedule_agp_4.yaml",
    "agp-pruning/resnet50.schedule_agp.filters.yaml",
    "agp-pruning/resnet50.schedule_agp.filters_3.yaml",
    "network_trimming/resnet50.filters.activation_apoz_agp.yaml",
    "network_trimming/resnet56_cifar_activation_apoz_v2.yaml",
    "pruning_filters_for_efficient_convnets/resnet56_cifar_channel_rank.yaml",
    "pruning_filters_for_efficient_convnets/resnet56_cifar_filter_rank_v2.yaml",
    "ssl/ssl_channels-removal_finetuning_x1.8.yaml",
    "ssl/vgg16_cifar_ssl_channels_training.yaml",
}


def plain(name: str) -> str:
    return name.removeprefix("module.").replace(".module.", ".")


def named_weights(value: Any) -> set[str]:
    """Strings and keys, at any depth, that are a parameter's name."""
    if isinstance(value, dict):
        return named_weights(list(value)) | named_weights(list(value.values()))
    if isinstance(value, list):
        return set().union(*(named_weights(entry) for entry in value)) if value else set()
    if isinstance(value, str) and re.search(r"\.(weight|bias)(_\w+)?$", value):
        return {plain(value)}
    return set()


def test_the_table_has_every_file(compat: Path) -> None:
    folder = compat / "distiller_schedules"
    assert {str(file.relative_to(folder)) for file in folder.rglob("*.y*ml")} == set(ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(ARCHITECTURES))
def test_every_weight_it_names_exists(compat: Path, meta: Meta, file: str) -> None:
    content = yaml.safe_load((compat / "distiller_schedules" / file).read_text())
    known = dict(meta(ARCHITECTURES[file]).named_parameters())
    wanted = named_weights(content)
    assert wanted <= known.keys(), wanted - known.keys()
    assert bool(wanted) == bool({"pruners", "regularizers"} & content.keys())


@pytest.mark.parametrize("file", sorted(ARCHITECTURES))
def test_the_shapes_it_prints_are_the_models(compat: Path, meta: Meta, file: str) -> None:
    lines = (compat / "distiller_schedules" / file).read_text().splitlines()
    rows = [(plain(m[1]), tuple(int(n) for n in m[2].split(",") if n.strip())) for m in map(ROW.match, lines) if m]
    shapes = meta.weights(ARCHITECTURES[file])
    if not rows:
        pytest.skip("its comment has no table of weights")
    for name, shape in rows:
        if file in THINNED:
            assert len(shape) == len(shapes[name])
            assert all(printed <= ours for printed, ours in zip(shape, shapes[name], strict=True)), name
        else:
            assert shape == shapes[name], name
    totals = {int(m[1]) for m in map(TOTAL.match, lines) if m}
    whole = sum(math.prod(shape) for shape in shapes.values())
    assert totals
    assert max(totals) <= whole
    if file not in THINNED:
        assert totals == {whole}


@pytest.mark.parametrize("file", sorted(file for file in ARCHITECTURES if "quant_aware_train" in file))
def test_every_module_a_quantizer_overrides_exists(compat: Path, meta: Meta, file: str) -> None:
    content = yaml.safe_load((compat / "distiller_schedules" / file).read_text())
    (quantizer,) = content["quantizers"].values()
    modules = dict(meta(ARCHITECTURES[file]).named_modules())
    assert len(quantizer["overrides"]) > 2
    assert set(quantizer["overrides"]) <= modules.keys()
