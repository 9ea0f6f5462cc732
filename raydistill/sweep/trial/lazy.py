"""A value on its way through Ray Tune's config. Light to import: what it carries is unpacked only where it is used."""

from __future__ import annotations

import pickle
from typing import Any


class Lazy:
    """Carries what Tune would copy, flatten and spell out in names of folders. name: what Tune sees of it."""

    def __init__(self, name: str, content: Any) -> None:
        self._name = name
        self._packed = pickle.dumps(content)

    @property
    def content(self) -> Any:
        return pickle.loads(self._packed)  # nosec B301 - packed by this sweep's own driver, a moment ago

    def __repr__(self) -> str:
        return self._name

    def __deepcopy__(self, memo: dict[int, Any]) -> Lazy:
        return self
