"""Names as MLflow allows them.

Keys of metrics, params and tags: letters, digits, ``_ - . / :`` and spaces, a normalised path, 250 characters.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

from raydistill.masking import masked

KEY_LIMIT = 250
PARAM_LIMIT = 6000
TAG_LIMIT = 8000


def key(name: str) -> str:
    """`name` as a key: ``policies[0].frequency`` becomes ``policies.0.frequency``, other odd characters ``_``."""
    text = re.sub(r"\[(\d+)\]", r".\1", name)
    text = re.sub(r"[^\w.\- /]", "_", text, flags=re.ASCII)
    text = posixpath.normpath("/" + text.strip()).lstrip("/")
    if not text or text == "." or text.startswith(".."):
        text = "_" + text
    return _shortened(text, KEY_LIMIT)


def param_text(value: object) -> str:
    """A param's text: floats exact, so that a trial can be repeated from it."""
    return _shortened(masked(str(value)), PARAM_LIMIT)


def tag_text(value: object) -> str:
    """A tag's text; booleans in lower case, as MLflow's own filters are written."""
    return _shortened(str(value).lower() if isinstance(value, bool) else masked(str(value)), TAG_LIMIT)


def model_name(text: str) -> str:
    """`text` as the name of a logged or registered model."""
    return re.sub(r"[/:.%\"']", "-", text).strip() or "model"


def registered_name(text: str) -> str:
    """`text` as a registered model's name: only slashes and colons are forbidden there."""
    name = re.sub(r"[/:]", "-", text).strip()
    return f"_{name}" if name in ("", ".") or name.startswith("..") else name


def _shortened(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]  # two long names that differ at the end stay apart
    return f"{text[: limit - 9]}~{digest}" if limit > KEY_LIMIT else f"{text[: limit - 9]}_{digest}"
