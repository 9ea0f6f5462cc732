"""Lines that are told, not copied: on a terminal they break between words, anywhere else they stay one line each."""

from __future__ import annotations

import shutil
import textwrap
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_LEAST = 20


def by_words(text: str, width: int) -> str:
    """`text` in lines of at most `width`, broken between words; a path or command that is longer stays whole."""
    options = {"subsequent_indent": "  ", "break_long_words": False, "break_on_hyphens": False}
    return textwrap.fill(text, max(_LEAST, width), **options)  # type: ignore[arg-type]


def told(text: str, stream: TextIO) -> str:
    """As a stream shows it."""
    return by_words(text, shutil.get_terminal_size().columns) if stream.isatty() else text


def warn(console: Console, text: str) -> None:
    """A warning, in its colour."""
    line = f"warning: {text}"
    shown = by_words(line, console.width) if console.is_terminal else line
    console.print(shown, style="bold yellow", soft_wrap=True, markup=False)
