"""Small image-folder trees, written with known pixels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Tree = tuple[Path, dict[str, np.ndarray]]


@pytest.fixture
def make_tree(tmp_path: Path) -> Callable[..., Tree]:
    """(root, pixels by relative path): PNG files, so that decoding loses nothing."""

    def make(
        per_class: int = 5,
        size: tuple[int, int] = (6, 8),
        splits: tuple[str, ...] = ("train", "test"),
        name: str = "tree",
    ) -> Tree:
        rng = np.random.default_rng(0)
        root = tmp_path / name
        pixels = {}
        for split in splits:
            for category in ("ant", "bee", "cow"):
                folder = root / split / category
                folder.mkdir(parents=True)
                for number in range(per_class):
                    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                    Image.fromarray(image).save(folder / f"{number:03}.png")
                    pixels[f"{split}/{category}/{number:03}.png"] = image
        return root, pixels

    return make
