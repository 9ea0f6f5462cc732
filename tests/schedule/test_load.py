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


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"a: [1, 2", "not valid YAML"),
        (b"a: 1\na: 2\n", "s.yaml:2: not valid YAML: key 'a' is given twice"),
        (b"- 1\n", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"a: !!python/object/apply:os.system [id]\n", "not valid YAML"),
    ],
)
def test_a_file_that_is_no_yaml_mapping_is_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_yaml(path)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "simplenet.yaml").write_text("version: 1\n")
    with pytest.raises(ConfigError, match=r"no such file; did you mean 'simplenet.yaml'\?"):
        read_yaml(tmp_path / "simplent.yaml")


def test_every_schedule_of_the_project_loads(root: Path) -> None:
    files = sorted((root / "schedules").glob("*.yaml"))
    assert files
    for file in files:
        spec = load_schedule(file)
        assert parse_schedule(yaml.safe_load(dump_schedule(spec)), str(file)) == spec


def test_every_schedule_that_users_have_loads(compat: Path) -> None:
    files = sorted((compat / "distiller_schedules").rglob("*.yaml"))
    assert len(files) == 37
    for file in files:
        assert load_schedule(file).policies


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


@pytest.mark.parametrize("spelling", ["1e-1", "1E-1", ".1", "1.0e-1", "10e-2", "+1e-1", "1_0e-2"])
def test_numbers_are_numbers_however_they_are_written(tmp_path: Path, spelling: str) -> None:
    found = read_yaml(written(tmp_path, f"a: {spelling}\nb: [{spelling}]\nc: {{{spelling}: 1}}"))
    assert found["a"] == pytest.approx(0.1)
    assert found["b"] == [found["a"]]
    assert list(found["c"]) == [found["a"]]


@pytest.mark.parametrize("text", ["1e", "e1", "1e5x", "0x1e5", "conv1e5", "1.2.3e4", "-e3"])
def test_what_only_looks_like_a_number_is_text(tmp_path: Path, text: str) -> None:
    assert read_yaml(written(tmp_path, f"a: {text}")) == {"a": 0x1E5 if text == "0x1e5" else text}


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


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: !!int x", "a value does not fit its tag (ValueError"),
        ("a: !!bool x", "a value does not fit its tag (KeyError"),
        ("a: !!timestamp x", "a value does not fit its tag"),
        ("a: !!float x", "a value does not fit its tag (ValueError"),
        (f"a: {'1' * 5000}", "a value does not fit its tag (ValueError"),
        ("a: {[b]: c}", "not valid YAML"),
        ("? {a: b}\n: c", "not valid YAML"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: &x [1, *x]", "an alias stands inside what it is an alias of"),
        ("a: &x {b: {c: *x}}", "an alias stands inside what it is an alias of"),
        (
            "a0: &a0 [1,1,1,1,1,1,1,1,1]\n" + "\n".join(f"a{i}: &a{i} [{','.join(f'*a{i - 1}' for _ in range(9))}]"
                                                     for i in range(1, 12)),
            "stands for more than 1,000,000 values",
        ),
        ("[" * 100_000, "nested too deeply"),
        ("", "must be a mapping"),
        ("a: \x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_odd_yaml_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(written(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize("text", ['a: "x\\ud800"', '"\\udc00": 1', 'a: [1, {b: "\\ud83d"}]', 'a: "\\0"'])
def test_half_a_character_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"s.yaml:1: holds a NUL or half of a character"):
        read_yaml(written(tmp_path, f"{text}\n"))


def test_a_whole_character_beyond_the_basic_plane_is_text(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, 'a: "\U0001f600"\nb: \U0001f600')) == {"a": "\U0001f600", "b": "\U0001f600"}
