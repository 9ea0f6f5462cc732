"""Names, globs, regular expressions, types of layers and exclusions stand for what they say, and for nothing else."""

from __future__ import annotations

import re

import pytest

from raydistill.errors import ConfigError
from raydistill.schedule.targets import Named, Targets, bare, is_pattern, matcher, narrowing, regex_faults

OFFERED = (
    Named("conv1.weight", ("Conv2d", "_ConvNd")),
    Named("bn1.weight", ("BatchNorm2d",), False),
    Named("bn1.bias", ("BatchNorm2d",), False),
    Named("layer1.0.conv1.weight", ("Scaled", "Conv2d", "_ConvNd")),
    Named("layer1.0.downsample.0.weight", ("Conv2d", "_ConvNd")),
    Named("fc.weight", ("Linear",)),
    Named("fc.bias", ("Linear",), False),
)
WEIGHTS = [one.name for one in OFFERED if one.weight]


def names(entries: list[str] | None = None, types: str = "", excluded: str = "") -> list[str]:
    said = None if entries is None else tuple(entries)
    return Targets(said, tuple(types.split()), tuple(excluded.split())).names(OFFERED, "s.yaml: pruners.p")


def lines(*said: object) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        names(*said)  # type: ignore[arg-type]
    return [str(fault).removeprefix("s.yaml: pruners.p") for fault in caught.value.faults]


def test_patterns_mean_weights_in_the_models_order_and_each_once() -> None:
    assert names() == names(["*"]) == WEIGHTS
    assert names(["fc.weight", "*conv1*", "conv?.weight"]) == ["fc.weight", "conv1.weight", "layer1.0.conv1.weight"]
    assert lines([r"re:conv1"])[0].startswith(".weights: no weight of the model")  # whole names
    assert names([r"re:(layer1\.0\.)?conv\d\.weight"]) == ["conv1.weight", "layer1.0.conv1.weight"]


def test_where_a_pattern_matches_no_weight_it_means_scales_and_then_other_parameters() -> None:
    assert names(["bn*"]) == ["bn1.weight"]
    assert names(["*.bias"]) == ["bn1.bias", "fc.bias"]
    assert names(None, "BatchNorm2d") == ["bn1.weight"]
    assert names(["*"], "BatchNorm2d") == ["bn1.weight"]


def test_a_type_is_the_layers_class_or_one_that_it_is_derived_from() -> None:
    assert names(None, "Conv2d") == WEIGHTS[:3]
    assert names(None, "Scaled torch.nn.Linear") == ["layer1.0.conv1.weight", "fc.weight"]
    assert names(["fc*", "conv*"], "Linear Conv2d") == ["fc.weight", "conv1.weight"]


def test_exclusions_are_names_globs_and_regular_expressions() -> None:
    assert names(None, "Conv2d", "*.downsample.*") == ["conv1.weight", "layer1.0.conv1.weight"]
    assert names(["*conv*"], "", "conv1.weight") == ["layer1.0.conv1.weight"]
    assert names(None, "", r"re:layer\d.* fc.weight") == ["conv1.weight"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (([r"re:x.*"],), ".weights: no weight of the model matches, got 're:x.*'; use one of: conv1.weight"),
        ((["fc.weight"], "Conv2d"), ".weights: nothing of it is in a layer of type Conv2d, got 'fc.weight'; leave it"),
        ((None, "Conv2D"), ".types: no layer of the model is of this type, got 'Conv2D'; did you mean 'Conv2d'?"),
        ((None, "LSTM"), ".types: no layer of the model is of this type, got 'LSTM'; use one of: BatchNorm2d, Conv2d"),
        ((None, "Linear", "conv*"), ".except: excludes nothing of what the section takes, got 'conv*'; use one of: fc"),
        (
            (None, "Linear", "fc.weigth"),
            ".except: excludes nothing of what the section takes, got 'fc.weigth'; did",
        ),
        ((None, "Linear", "fc*"), ".except: excludes all that the section takes, got ['fc*']; leave something"),
        ((["re:conv("],), ".weights: is no regular expression (missing ), unterminated subpattern at position 4)"),
        ((["re:(a+)+"],), ".weights: may take for ever to match, got '(a+)+'; repeat nothing that repeats by itself"),
    ],
)
def test_what_means_nothing_is_one_line(said: tuple[object, ...], line: str) -> None:
    found = lines(*said)
    assert len(found) == 1
    assert found[0].startswith(line)


def test_all_that_is_wrong_is_said_at_once() -> None:
    assert len(lines(["x*", "y*"])) == 2
    assert len(lines(None, "A B")) == 2
    assert len(lines(None, "", "x y*")) == 2


def test_a_name_that_is_not_there_stands_for_itself_or_is_a_fault() -> None:
    said = Targets(("conv1.weigth", "fc.weight"))
    assert said.names(OFFERED, "p") == ["conv1.weigth", "fc.weight"]
    with pytest.raises(ConfigError, match=r"no weight of the model matches, got 'conv1.weigth'; did you mean 'conv1"):
        said.names(OFFERED, "p", strict=True)


def test_wrappers_need_not_be_named() -> None:
    wrapped = [Named(f"module.{one.name}", one.types, one.weight) for one in OFFERED]
    for entry in ("conv1.weight", "module.conv1.weight", "conv?.weight", "module.conv?.weight", r"re:conv1\..*"):
        assert Targets((entry,)).names(wrapped, "p") == ["module.conv1.weight"]
        if not entry.startswith("re:"):
            assert Targets((entry,)).names(OFFERED, "p") == ["conv1.weight"]
    assert bare("_orig_mod.module.a.weight") == "a.weight"


def test_matching_agrees_with_the_library_on_whole_names() -> None:
    for pattern in (r"conv1\.weight", ".*conv1.*", "conv", "fc.bias|fc.weight"):
        expected = [one.name for one in OFFERED if re.fullmatch(pattern, one.name)]
        assert [one.name for one in OFFERED if matcher(f"re:{pattern}")(one.name)] == expected
    assert all(map(is_pattern, ("a*", "a?", "[ab]", "re:a")))
    assert not any(map(is_pattern, ("a", "a.re", 3)))
    assert regex_faults("a" * 501, "p")
    assert not regex_faults(r"a\d+", "p")


def test_types_and_exclusions_are_lists_of_texts_or_one_text() -> None:
    rest, said = narrowing({"weights": ["a"], "types": "Conv2d", "except": ["b"]}, "p")
    assert rest == {"weights": ["a"]}
    assert said == Targets(None, ("Conv2d",), ("b",))
    with pytest.raises(ConfigError) as caught:
        narrowing({"types": [3], "except": []}, "p")
    assert [str(fault) for fault in caught.value.faults] == [
        "p.types: must be a list of names, got [3]; such as [Conv2d]",
        "p.except: is empty; leave it out, or say such as ['*.downsample.*']",
    ]
