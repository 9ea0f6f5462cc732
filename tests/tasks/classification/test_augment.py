"""Crops and flips against one image at a time, written naively; draws against what chance should give."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raydistill.tasks.classification.augment import Normalise, WindowGather, draw_epoch, gather_pixels


def naive(image: np.ndarray, dy: int, dx: int, flip: bool) -> np.ndarray:
    """torchvision's order is free here: flip the image, pad it with four zeros, cut the window out."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y, from_x = y + dy - 4, x + dx - 4
            if 0 <= from_y < height and 0 <= from_x < width:
                out[y, x] = image[from_y, width - 1 - from_x if flip else from_x]
    return out


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 2), (1, 1)])
def test_both_gathers_are_the_naive_crop_for_every_corner_and_flip(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    flip, dy, dx = (values.ravel() for values in np.meshgrid([True, False], np.arange(9), np.arange(9), indexing="ij"))
    images = rng.integers(1, 256, (162, *shape, 3), dtype=np.uint8)
    expected = np.stack([naive(*values) for values in zip(images, dy, dx, flip, strict=True)])
    pixels = torch.from_numpy(images)
    gathered = gather_pixels(pixels, torch.from_numpy(dy), torch.from_numpy(dx), torch.from_numpy(flip))
    assert (gathered.numpy() == expected).all()
    windows = WindowGather(162, *shape)
    assert (windows(pixels, dy, dx, flipped=81).numpy() == expected).all()
    # a smaller batch afterwards must not see what the larger one left behind
    assert (windows(pixels[:5], dy[:5], dx[:5], flipped=2)[2:].numpy() == [naive(*v, False) for v in
            zip(images[2:5], dy[2:5], dx[2:5], strict=True)]).all()  # fmt: skip


def test_a_window_does_not_share_memory_with_the_next_batch() -> None:
    windows = WindowGather(2, 4, 4)
    middle = np.full(2, 4)
    first = windows(torch.full((2, 4, 4, 3), 1, dtype=torch.uint8), middle, middle, 0)
    windows(torch.full((2, 4, 4, 3), 9, dtype=torch.uint8), middle, middle, 0)
    assert (first == 1).all()


@pytest.mark.slow
def test_draws_are_fair_and_independent() -> None:
    count = 60_000
    draw = draw_epoch(count, "crop_flip", seed=1, epoch=2)
    assert sorted(draw.order) == list(range(count))
    cells = np.bincount((draw.dy * 9 + draw.dx) * 2 + draw.flip, minlength=162)
    # chi squared with 161 degrees of freedom: mean 161, standard deviation 18
    assert ((cells - count / 162) ** 2 / (count / 162)).sum() < 161 + 4 * 18
    assert abs(np.corrcoef(draw.order, draw.dy)[0, 1]) < 0.02


def test_what_is_not_asked_for_is_not_done() -> None:
    plain = draw_epoch(1000, "none", 0, 0)
    assert set(plain.dy) == set(plain.dx) == {4}
    assert not plain.flip.any()
    cropped = draw_epoch(1000, "crop", 0, 0)
    assert not cropped.flip.any()
    assert len(set(cropped.dy)) == 9
    assert (plain.order == cropped.order).all()


def test_seed_and_epoch_decide_and_are_not_interchangeable() -> None:
    def key(seed: int, epoch: int) -> bytes:
        draw = draw_epoch(100, "crop_flip", seed, epoch)
        return draw.order.tobytes() + draw.dy.tobytes() + draw.dx.tobytes() + draw.flip.tobytes()

    assert key(3, 4) == key(3, 4)
    assert len({key(seed, epoch) for seed in range(6) for epoch in range(6)}) == 36


@pytest.mark.parametrize("channels_last", [True, False])
def test_normalise_is_the_formula_in_double_precision(channels_last: bool) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 5, 7, 3), dtype=np.uint8)
    mean, std = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26)
    batch = Normalise(mean, std, (5, 7), torch.device("cpu"), channels_last)(torch.from_numpy(images))
    expected = ((images.astype(np.float64) / 255 - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(batch.numpy(), expected, atol=2e-6)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    assert batch.is_contiguous(memory_format=memory_format)
    assert batch.dtype == torch.float32
