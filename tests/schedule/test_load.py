from __future__ import annotations

import copy
from pathlib import Path

import pytest
import yaml

from raydistill.errors import ConfigError
from raydistill.schedule import dump_schedule, load_schedule, parse_schedule, read_yaml

GOOD = {
    "version": 1,
    "pruners": {"p": {"class": "AutomatedGradualPruner", "weights": ["module.fc.weight"], "final_sparsity": 0.5}},
    "lr_schedulers": {"lr": {"class": "StepLR", "step_size": 3}},
    "policies": [
        {"pruner": {"instance_name": "p"}, "starting_epoch": 1, "ending_epoch": 6, "frequency": 2},
        {"lr_scheduler": {"instance_name": "lr"}, "epochs": [0, 4]},
    ],
}


def changed(**paths: object) -> dict:
    """GOOD with one policy key or top-level key replaced; None removes it."""
    mapping = copy.deepcopy(GOOD)
    for path, value in paths.items():
        holder = mapping["policies"][0] if not path.startswith("top_") else mapping
        key = path.removeprefix("top_")
        if value is None:
            del holder[key]
        else:
            holder[key] = value
    return mapping


def test_policies_say_in_which_epochs_they_act() -> None:
    spec = parse_schedule(GOOD, "s.yaml")
    assert spec.policies[0].active_epochs() == (1, 3, 5)
    assert spec.policies[1].active_epochs() == (0, 4)
    assert spec.last_epoch == 5


def test_names_stay_as_the_file_spells_them_and_the_mapping_is_left_alone() -> None:
    mapping = copy.deepcopy(GOOD)
    spec = parse_schedule(mapping, "s.yaml")
    assert spec.instance("pruner", "p").args["weights"] == GOOD["pruners"]["p"]["weights"]
    assert mapping == GOOD


def test_dumped_text_reads_back_to_the_same_schedule() -> None:
    spec = parse_schedule(GOOD, "s.yaml")
    assert parse_schedule(yaml.safe_load(dump_schedule(spec)), "s.yaml") == spec


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        (changed(top_prunners={}), "s.yaml: prunners: unknown section; did you mean 'pruners'?"),
        (changed(top_version=2), "s.yaml: version: must be 1, got 2"),
        (changed(ending_epoch=1), "policies[0].ending_epoch: must be above starting_epoch 1"),
        (changed(frequency=0), "policies[0].frequency: must be at least 1"),
        (changed(starting_epoch=-1), "policies[0].starting_epoch: must be a whole number from 0 to 1,000,000, got -1"),
        (changed(starting_epoch=True), "policies[0].starting_epoch: must be a whole number"),
        (changed(starting_epoch=1.5), "policies[0].starting_epoch: must be a whole number"),
        (changed(ending_epoch=None), "policies[0]: needs 'ending_epoch'"),
        (changed(epochs=[1, 2]), "has both 'epochs' and 'starting_epoch'"),
        (changed(begining=3), "policies[0].begining: unknown key"),
        (changed(pruner={"instance_name": "q"}), "policies[0].pruner.instance_name: no such entry in 'pruners'"),
        (changed(pruner="p"), "policies[0].pruner: must have 'instance_name'"),
        (changed(lr_scheduler={"instance_name": "lr"}), "must have exactly one of"),
        (changed(pruner=None), "must have exactly one of"),
        (changed(top_policies={"a": 1}), "s.yaml: policies: must be a list"),
        (changed(top_pruners=["p"]), "s.yaml: pruners: must map names to instances"),
        (changed(top_pruners={"p": {"clas": "A"}}), "pruners.p.class: must name a class; did you mean 'clas'?"),
    ],
)
def test_each_fault_is_one_line_with_its_place(mapping: dict, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedule(mapping, "s.yaml")
    assert says in str(caught.value)
    assert all("\n" not in str(fault) for fault in caught.value.faults)


def test_all_faults_are_reported_together() -> None:
    mapping = changed(top_prunners={}, frequency=0, ending_epoch=0)
    with pytest.raises(ConfigError) as caught:
        parse_schedule(mapping, "s.yaml")
    assert len(caught.value.faults) == 3


def test_two_quantizers_are_refused() -> None:
    mapping = {
        "quantizers": {"a": {"class": "Q"}, "b": {"class": "Q"}},
        "policies": [{"quantizer": {"instance_name": name}, "epochs": [0]} for name in "ab"],
    }
    with pytest.raises(ConfigError, match="at most one quantizer"):
        parse_schedule(mapping, "s.yaml")


@pytest.mark.slow
def test_every_schedule_of_the_project_loads(root: Path) -> None:
    files = sorted((root / "schedules").glob("*.yaml"))
    assert files
    for file in files:
        spec = load_schedule(file)
        assert parse_schedule(yaml.safe_load(dump_schedule(spec)), str(file)) == spec


@pytest.mark.slow
def test_every_schedule_that_users_have_loads(compat: Path) -> None:
    files = sorted((compat / "distiller_schedules").rglob("*.yaml"))
    assert len(files) == 37
    for file in files:
        assert load_schedule(file).policies


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


def test_text_of_a_number_stays_text_when_it_is_written_again(tmp_path: Path) -> None:
    spec = parse_schedule({"pruners": {"p": {"class": "C", "a": "1e-1", "b": 1e-5, "c": "1.0"}}}, "s.yaml")
    again = load_schedule(written(tmp_path, dump_schedule(spec)), source="s.yaml")
    assert again == spec


TWICE = """version: 1
pruners:
  p: {class: AutomatedGradualPruner, final_sparsity: 0.5,
      weights: [a], final_sparsity: 0.7}
policies:
  - {pruner: {instance_name: p}, epochs: [0]}
pruners:
  p: {class: AutomatedGradualPruner, final_sparsity: 0.9, weights: [b]}
"""


def test_a_key_given_twice_is_a_warning_that_names_both_lines_and_the_last_counts(tmp_path: Path) -> None:
    path = written(tmp_path, TWICE)
    spec = load_schedule(path)
    assert spec.instance("pruner", "p").args == {"final_sparsity": 0.9, "weights": ["b"]}
    assert [line.removeprefix(f"{path}: ") for line in sorted(spec.warnings)] == [
        "'final_sparsity' is given twice, in lines 3 and 4: the last counts; keep one of the two",
        "'pruners' is given twice, in lines 2 and 7: the last counts; keep one of the two",
    ]
    with pytest.raises(ConfigError, match=r"s\.yaml:7: not valid YAML: key 'pruners' is given twice, in line 2 too"):
        load_schedule(path, strict=True)
    with pytest.raises(ConfigError, match="given twice"):
        read_yaml(path)


def test_a_path_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").symlink_to("gone.yaml")
    for path in ("a\0b.yaml", tmp_path, tmp_path / "broken.yaml", tmp_path / "x.yaml" / "y.yaml"):
        with pytest.raises(ConfigError) as caught:
            load_schedule(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "policy",
    [
        {"starting_epoch": 0, "ending_epoch": 10**30, "frequency": 1},
        {"starting_epoch": 2**63 - 1, "ending_epoch": 2**63, "frequency": 1},
        {"starting_epoch": 0, "ending_epoch": 2_000_000, "frequency": 1},
        {"epochs": [10**18]},
    ],
)
def test_huge_epochs_are_refused_before_they_are_counted(policy: dict) -> None:
    body = {**GOOD, "policies": [{"pruner": {"instance_name": "p"}, **policy}]}
    with pytest.raises(ConfigError, match="1,000,000"):
        parse_schedule(body, "s.yaml")


def test_many_long_policies_are_refused_together() -> None:
    one = {"pruner": {"instance_name": "p"}, "starting_epoch": 0, "ending_epoch": 900_000, "frequency": 1}
    with pytest.raises(ConfigError, match="policies: may act 1,000,000 times in all, got 1800000"):
        parse_schedule({**GOOD, "policies": [one, one]}, "s.yaml")


def test_a_name_that_cannot_be_printed_is_escaped() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_schedule({**GOOD, "pruners": {"p\ud800": {"class": "\udfff"}}, "x\ud800": 1}, "s.yaml")
    str(caught.value).encode()
