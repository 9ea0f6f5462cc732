"""YAML of a user's: what is read, and one line for whatever is odd."""

from __future__ import annotations

from pathlib import Path

import pytest

from raydistill.errors import ConfigError
from raydistill.schedule.yaml_file import dump_yaml, read_yaml


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    return path


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


@pytest.mark.parametrize("spelling", ["1e-1", "1E-1", ".1", "1.0e-1", "10e-2", "+1e-1", "1_0e-2"])
def test_numbers_are_numbers_however_they_are_written(tmp_path: Path, spelling: str) -> None:
    found = read_yaml(written(tmp_path, f"a: {spelling}\nb: [{spelling}]\nc: {{{spelling}: 1}}"))
    assert found["a"] == pytest.approx(0.1)
    assert found["b"] == [found["a"]]
    assert list(found["c"]) == [found["a"]]


@pytest.mark.parametrize("text", ["1e", "e1", "1e5x", "0x1e5", "conv1e5", "1.2.3e4", "-e3"])
def test_what_only_looks_like_a_number_is_text(tmp_path: Path, text: str) -> None:
    assert read_yaml(written(tmp_path, f"a: {text}")) == {"a": 0x1E5 if text == "0x1e5" else text}


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
        pytest.param("[" * 100_000, "nested too deeply", marks=pytest.mark.slow),
        ("", "must be a mapping"),
        ("a: \x00", "not valid YAML"),
    ],
)  # fmt: skip
def test_odd_yaml_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(written(tmp_path, text))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ['a: "x\\ud800"', '"\\udc00": 1', 'a: [1, {b: "\\ud83d"}]', 'a: "\\0"'])
def test_half_a_character_is_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"s.yaml:1: holds a NUL or half of a character"):
        read_yaml(written(tmp_path, f"{text}\n"))


def test_a_whole_character_beyond_the_basic_plane_is_text(tmp_path: Path) -> None:
    assert read_yaml(written(tmp_path, 'a: "\U0001f600"\nb: \U0001f600')) == {"a": "\U0001f600", "b": "\U0001f600"}


def test_what_is_dumped_reads_back_in_its_order(tmp_path: Path) -> None:
    mapping = {"b": 1e-7, "a": ["1e-7", 2.5e10, {"x": None, "w": True}], "c": "1.0"}
    again = read_yaml(written(tmp_path, dump_yaml(mapping)))
    assert again == mapping
    assert list(again) == list(mapping)
