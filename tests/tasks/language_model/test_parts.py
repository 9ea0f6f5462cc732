from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from raydistill.errors import ConfigError, DataError
from raydistill.tasks import files as in_files
from raydistill.tasks.language_model.parts import find_parts, read_parts


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def files(*names: str) -> Path:
        for name in names:
            (tmp_path / name).write_text(f"of {name}\n")
        return tmp_path

    return files


def test_parts_are_known_by_their_names(write: Callable[..., Path]) -> None:
    folder = write("wiki.train.tokens", "wiki.valid.tokens", "wiki.TEST.tokens", "README.md", "train.csv")
    files = find_parts(str(folder), {})
    assert {part: path.name for part, path in files.items()} == {
        "train": "wiki.train.tokens", "validation": "wiki.valid.tokens", "test": "wiki.TEST.tokens",
    }  # fmt: skip
    assert read_parts(files)["validation"] == b"of wiki.valid.tokens\n"


def test_parts_are_named_and_the_others_found(write: Callable[..., Path]) -> None:
    folder = write("wikitext2-valid.txt", "wikitext2-test.txt", "held out.text")
    files = find_parts(str(folder), {"train": "wikitext2-valid.txt", "validation": "held out.text"})
    assert [files[part].name for part in ("train", "validation", "test")] == [
        "wikitext2-valid.txt", "held out.text", "wikitext2-test.txt",
    ]  # fmt: skip


@pytest.mark.parametrize("whole", [True, False])
def test_one_file_is_split_behind_lines(tmp_path: Path, whole: bool) -> None:
    text = "".join(f"line {number:04}\n" for number in range(1000)).encode()
    (tmp_path / "book.txt").write_bytes(text)
    found = read_parts(find_parts(str(tmp_path / "book.txt" if whole else tmp_path), {}))
    assert b"".join(found.values()) == text
    assert list(found) == ["train", "validation", "test"]
    assert {part: content.count(b"\n") for part, content in found.items()} == pytest.approx(
        {"train": 800, "validation": 100, "test": 100}, abs=1
    )
    assert all(content.startswith(b"line ") for content in found.values())


@pytest.mark.parametrize(
    ("files", "named", "error", "says"),
    [
        (["a.txt", "b.txt"], {}, ConfigError, "has no file for the train part, got ['a.txt', 'b.txt']; name one"),
        (["train.txt", "test.txt"], {}, ConfigError, "has no file for the validation part"),
        (["train1.txt", "train2.txt", "valid.txt"], {}, ConfigError, "has several files for the train part"),
        ([], {}, ConfigError, "has no file for the train part, got []"),
        (["a.txt"], {"train": "b.txt"}, DataError, "task.args.train: no such file in "),
        (["a.txt"], {"test": 3}, ConfigError, "task.args.test: must name a file in dataset.data_dir, got 3"),
    ],
)  # fmt: skip
def test_a_part_that_cannot_be_told_is_one_line(
    write: Callable[..., Path], files: list[str], named: dict[str, str], error: type[Exception], says: str
) -> None:
    with pytest.raises(error) as caught:
        find_parts(str(write(*files)), named)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_that_are_none(write: Callable[..., Path]) -> None:
    with pytest.raises(ConfigError, match=r"dataset.data_dir: must be given: where the text is; give a text file"):
        find_parts(None, {})
    with pytest.raises(DataError, match=r"dataset.data_dir: no such file or folder, got '.*gone'"):
        find_parts(str(write() / "gone"), {})
    with pytest.raises(ConfigError, match=r"task.args.train: has no use: .*a.txt is one file, which is split"):
        find_parts(str(write("a.txt") / "a.txt"), {"train": "a.txt"})


def test_files_that_cannot_be_read_are_one_line(write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write("train.txt", "valid.txt", "test.txt")
    (folder / "valid.txt").write_bytes(b"")
    files = find_parts(str(folder), {})
    with pytest.raises(DataError, match=r"valid.txt: is empty; give a file with data"):
        read_parts(files)
    with pytest.raises(DataError, match=r"train.txt: cannot be read \(Is a directory\)"):
        read_parts({**files, "train": _folder(folder / "as" / "train.txt")})
    monkeypatch.setattr(in_files, "available_memory", lambda: 80)  # train.txt has 13 bytes
    with pytest.raises(DataError, match=r"train.txt: of 13 bytes takes up to 8 times that in memory, 80 are free"):
        read_parts(files)
    (folder / "short.txt").write_text("ab")
    monkeypatch.undo()
    with pytest.raises(DataError, match=r"short.txt: is too short to be split: no validation part is left"):
        read_parts(find_parts(str(folder / "short.txt"), {}))


def _folder(path: Path) -> Path:
    path.mkdir(parents=True)
    return path
