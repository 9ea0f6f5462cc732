from __future__ import annotations

import pytest

from raydistill.errors import CheckpointError, DataError
from raydistill.tasks.language_model.vocabulary import Vocabulary

TEXT = b"b a b\n c  b\ta \n\nd"


def test_words_are_numbered_by_how_often_they_come() -> None:
    known = Vocabulary.of(TEXT, "words", "train.txt")
    # four ends of lines, of an empty one and of the last too
    assert known.words == ("<eos>", "b", "a", "c", "d", "<unk>")
    assert known.numbers(TEXT, "train.txt").tolist() == [1, 2, 1, 0, 3, 1, 2, 0, 0, 4, 0]
    assert known.numbers(b"e b\n", "test.txt").tolist() == [5, 1, 0]
    assert known.size == 6


def test_the_rare_are_unknown() -> None:
    known = Vocabulary.of(TEXT, "words", "train.txt", 2)
    assert known.words == ("<eos>", "b", "<unk>")
    assert known.numbers(TEXT, "train.txt").tolist() == [1, 2, 1, 0, 2, 1, 2, 0, 0, 2, 0]
    only = Vocabulary.of(b"a a a\n", "words", "train.txt", 1)
    assert only.words == ("a", "<unk>", "<eos>")


def test_a_text_that_has_the_word_for_unknown_itself_keeps_its_place() -> None:
    known = Vocabulary.of(b"<unk> <unk> a\n", "words", "train.txt")
    assert known.words == ("<unk>", "a", "<eos>")
    assert known.numbers(b"z a\n", "test.txt").tolist() == [0, 1, 2]


def test_bytes_are_their_own_numbers() -> None:
    known = Vocabulary.of(b"", "bytes", "train.bin")
    content = bytes(range(256))
    assert known.numbers(content, "any").tolist() == list(range(256))
    assert (known.size, known.words) == (256, ())


@pytest.mark.parametrize("content", [b"good\nb\xff\xfed\n", "naïve".encode("latin-1") + b"\n"])
def test_what_is_no_utf_8_is_one_line(content: bytes) -> None:
    place = content.index(max(content))
    with pytest.raises(DataError, match=rf"train.txt: is not UTF-8 at byte {place}, got .*tokens: bytes") as caught:
        Vocabulary.of(content, "words", "train.txt")
    assert "\n" not in str(caught.value)


def test_a_binary_is_one_line() -> None:
    with pytest.raises(DataError, match=r"train.txt: is binary, no text; give UTF-8 text, or task.args.tokens: bytes"):
        Vocabulary.of(b"\x7fELF\0\0", "words", "train.txt")


def test_a_checkpoint_gives_it_back() -> None:
    for known in (Vocabulary.of(TEXT, "words", ""), Vocabulary("bytes")):
        assert Vocabulary.of_checkpoint(known.described(), "ckpt") == known
    assert Vocabulary.of_checkpoint({"num_classes": 10}, "ckpt") is None


@pytest.mark.parametrize(
    "said",
    [{"tokens": "words"}, {"vocabulary": ["a", "<unk>"]}, {"tokens": "words", "vocabulary": ["a"]},
     {"tokens": "words", "vocabulary": [1, "<unk>"]}, {"tokens": "bytes", "vocabulary": ["<unk>"]},
     {"tokens": 3, "vocabulary": []}],
)  # fmt: skip
def test_a_damaged_one_is_refused(said: dict[str, object]) -> None:
    with pytest.raises(CheckpointError, match=r"ckpt: is damaged: its 'vocabulary' is not what it must be"):
        Vocabulary.of_checkpoint(said, "ckpt")
