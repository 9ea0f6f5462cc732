"""Words or bytes as numbers."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from raydistill.errors import ABSENT, CheckpointError, ConfigError, DataError, Fault

WORDS, BYTES = "words", "bytes"
KINDS = (WORDS, BYTES)
UNKNOWN, END = "<unk>", "<eos>"
"""What stands for a word that the vocabulary lacks, and for the end of a line."""
_MOST = 2_000_000
"""Words of a vocabulary: with more of them a network is all embedding."""


@dataclass(frozen=True)
class Vocabulary:
    """tokens: ``words`` or ``bytes``. words: by their numbers, `UNKNOWN` among them; () of bytes, whose numbers they
    are themselves.
    """

    tokens: str
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, content: bytes, tokens: str, where: str, most: int | None = None) -> Vocabulary:
        """Of a train part: its words, the most frequent first. most: how many of them are kept.

        Raises:
            DataError: it is no text. ConfigError: too many different words.
        """
        if tokens == BYTES:
            return cls(BYTES)
        counts = Counter(_words(content, where))
        kept = [word for word, _ in counts.most_common(most)]
        known = set(kept)
        kept += [word for word in (UNKNOWN, END) if word not in known]
        if len(kept) > _MOST:
            way_out = "keep the most frequent (task.args.vocabulary: 50000), or task.args.tokens: bytes"
            raise ConfigError(Fault(where, f"has more than {_MOST:,} different words", len(kept), way_out))
        return cls(WORDS, tuple(kept))

    @classmethod
    def of_checkpoint(cls, content: Mapping[str, Any], where: str) -> Vocabulary | None:
        """What a checkpoint's network was trained on; None where it is of another task.

        Raises:
            CheckpointError: it is damaged.
        """
        tokens, words = content.get("tokens"), content.get("vocabulary")
        if tokens is None and words is None:
            return None
        right = tokens in KINDS and isinstance(words, (list, tuple)) and all(isinstance(word, str) for word in words)
        if not right or (tokens == WORDS) != (UNKNOWN in words):  # type: ignore[operator]
            raise CheckpointError(Fault(where, "is damaged: its 'vocabulary' is not what it must be"))
        return cls(str(tokens), tuple(words or ()))

    @property
    def size(self) -> int:
        return 256 if self.tokens == BYTES else len(self.words)

    def numbers(self, content: bytes, where: str) -> np.ndarray:
        """The tokens of a text, uint8 or int32 (N,).

        Raises:
            DataError: it is no text.
        """
        if self.tokens == BYTES:
            return np.frombuffer(content, dtype=np.uint8).copy()
        known = {word: number for number, word in enumerate(self.words)}
        unknown = known[UNKNOWN]
        return np.fromiter((known.get(word, unknown) for word in _words(content, where)), dtype=np.int32)

    def described(self) -> dict[str, Any]:
        """The keys of a checkpoint that say it."""
        return {"tokens": self.tokens, "vocabulary": list(self.words), "num_classes": self.size}


def _words(content: bytes, where: str) -> Iterator[str]:
    """Parted by white space, with `END` behind each line, as Distiller's corpus has them."""
    way_out = "give UTF-8 text, or task.args.tokens: bytes"
    if b"\0" in content[: 1 << 16]:
        raise DataError(Fault(where, "is binary, no text", ABSENT, way_out))
    read = 0
    for line in io.BytesIO(content):
        try:
            yield from line.decode().split()
        except UnicodeDecodeError as error:
            rule = f"is not UTF-8 at byte {read + error.start:,}"
            raise DataError(Fault(where, rule, line[error.start : error.start + 4], way_out)) from error
        yield END
        read += len(line)
