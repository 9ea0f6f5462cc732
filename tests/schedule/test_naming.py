"""A schedule without patterns says what the one with them does."""

from __future__ import annotations

import pytest

from raydistill.errors import ConfigError
from raydistill.schedule import Named, Names
from raydistill.schedule.naming import named_instance, named_layers, named_schedule, named_weights

WEIGHTS = ["conv1.weight", "conv2.weight", "fc.weight"]
LAYERS = [("conv1", "Conv2d"), ("conv2", "Conv2d"), ("relu", "ReLU"), ("fc", "Linear")]
SCALE = Named("bn.weight", ("BatchNorm2d",), False)
NAMES = Names(
    (*(Named(f"{name}.weight", (kind,)) for name, kind in LAYERS if kind != "ReLU"), SCALE),
    tuple(Named(name, (kind,), kind != "ReLU") for name, kind in LAYERS),
)
FLOATS = {"bits_weights": None, "bits_activations": None, "bits_bias": None}


def weights(**args: object) -> dict[str, object]:
    args = {key.rstrip("_"): value for key, value in args.items()}
    return named_weights(args, NAMES, "s.yaml: pruners.p")


def test_what_names_no_pattern_is_left_alone() -> None:
    for plain in (["fc.weight", "unknown"], {"fc.weight": 1}, "fc.weight", 3, None, [3, "conv*"], ["a", "a"]):
        assert weights(weights=plain) == {"weights": plain}
    assert weights(kwargs={"block_shape": [1]}, name="conv*") == {"kwargs": {"block_shape": [1]}, "name": "conv*"}


def test_a_list_keeps_its_order_and_one_text_is_a_list() -> None:
    found = weights(weights=["fc.weight", "conv*", "*2.weight"])
    assert found == {"weights": ["fc.weight", "conv1.weight", "conv2.weight"]}
    assert weights(weights="re:conv.*") == {"weights": WEIGHTS[:2]}
    assert weights(weights=["fc.weight", "fc.weight", "conv*"])["weights"][:2] == ["fc.weight"] * 2  # said elsewhere


def test_in_a_mapping_a_name_counts_before_a_pattern_and_a_pattern_before_those_below_it() -> None:
    levels = {r"re:conv[12]\.weight": 1, "*": 2, "conv2.weight": 3}
    assert weights(levels=levels) == {"levels": {"conv1.weight": 1, "conv2.weight": 3, "fc.weight": 2}}
    assert weights(levels=levels, types=["Conv2d"]) == {"levels": {"conv1.weight": 1, "conv2.weight": 3}}
    assert weights(levels={"*": 1}, except_="fc.weight") == {"levels": dict.fromkeys(WEIGHTS[:2], 1)}


def test_types_and_exclusions_may_stand_alone_and_narrow_what_is_beside_them() -> None:
    assert weights(types="Conv2d", rate="cubic") == {"rate": "cubic", "weights": WEIGHTS[:2]}
    assert weights(except_=["conv1.weight"]) == {"weights": WEIGHTS[1:]}
    assert weights(types="BatchNorm2d") == {"weights": ["bn.weight"]}
    assert weights(weights="fc.weight", types="Linear") == {"weights": ["fc.weight"]}
    assert weights(kwargs={"a": [1]}, types="Linear") == {"kwargs": {"a": [1]}, "weights": ["fc.weight"]}


def test_what_was_meant_to_name_weights_is_not_replaced() -> None:
    assert weights(weights=3, types="Conv2d") == {"weights": 3}
    assert weights(levels={"fc.weigth": 1}, types="Linear") == {"levels": {"fc.weigth": 1}}


def test_what_matches_nothing_is_a_line_each_where_it_stands() -> None:
    with pytest.raises(ConfigError) as caught:
        weights(weights=["x*", "fc.weight"], levels={"y?": 1}, name="z*")
    assert [str(fault).partition(";")[0] for fault in caught.value.faults] == [
        "s.yaml: pruners.p.weights: no weight of the model matches, got 'x*'",
        "s.yaml: pruners.p.levels: no weight of the model matches, got 'y?'",
    ]


def test_a_quantizer_leaves_in_floats_what_is_left_out() -> None:
    assert named_layers({"bits_weights": 8, "except": ["fc"]}, NAMES, "q") == {
        "bits_weights": 8,
        "overrides": {"fc": FLOATS},
    }
    found = named_layers({"types": ["Linear"], "overrides": {"conv1": {"bits_weights": 4}, "fc": {}}}, NAMES, "q")
    assert found == {"overrides": {"conv1": FLOATS, "conv2": FLOATS, "fc": {}}}
    assert named_layers({"bits_weights": 8, "overrides": None}, NAMES, "q") == {"bits_weights": 8, "overrides": None}


def test_an_override_is_narrowed_to_layers() -> None:
    said = {".*": {"bits_weights": 4, "types": ["Conv2d"], "except": ["conv2"]}, "conv1": {"bits_weights": 2}, "fc": {}}
    assert named_layers({"overrides": said}, NAMES, "q") == {"overrides": {"conv1": {"bits_weights": 4}, "fc": {}}}
    with pytest.raises(ConfigError) as caught:
        named_layers({"except": "conv9", "overrides": {"(": {"types": "Conv2d"}, ".*": {"types": "LSTM"}}}, NAMES, "q")
    assert [str(fault).partition(",")[0] for fault in caught.value.faults] == [
        "q.except: excludes nothing of what the section takes",
        "q.overrides.(.weights: is no regular expression (missing )",
        "q.overrides..*.types: no layer of the model is of this type",
    ]


def test_a_schedule_is_copied_and_only_what_names_parts_is_looked_at() -> None:
    schedule = {
        "pruners": {"p": {"class": "X", "weights": ["conv*"]}},
        "regularizers": {"r": {"class": "Y", "reg_regims": {"*": 0.1}}},
        "extensions": {"e": {"class": "W", "types": "Linear"}},
        "quantizers": {"q": {"class": "V", "except": "conv*"}},
        "lr_schedulers": {"l": {"class": "Z", "weights": ["conv*"]}},
    }
    found = named_schedule(schedule, NAMES, "s.yaml")
    assert found["pruners"] == {"p": {"class": "X", "weights": WEIGHTS[:2]}}
    assert found["regularizers"] == {"r": {"class": "Y", "reg_regims": dict.fromkeys(WEIGHTS, 0.1)}}
    assert found["extensions"] == {"e": {"class": "W", "weights": ["fc.weight"]}}
    assert found["quantizers"] == {"q": {"class": "V", "overrides": {"conv1": FLOATS, "conv2": FLOATS}}}
    assert found["lr_schedulers"] == schedule["lr_schedulers"]
    assert named_instance("lr_schedulers", {"types": 3}, NAMES, "l") == {"types": 3}
    assert schedule["pruners"]["p"]["weights"] == ["conv*"]
    with pytest.raises(ConfigError) as caught:
        named_schedule({"pruners": {"a": {"types": "X"}}, "quantizers": {"q": {"types": "Y"}}}, NAMES, "s.yaml")
    assert len(caught.value.faults) == 2
