"""Random crop, flip and normalisation of whole batches of uint8 images.

Shapes: images are uint8 (B, H, W, C), of 3 channels or 1; float32 ones are cropped and flipped alike. A crop is a
window of the image padded with `PADDING` zeros (of the raw pixels, as torchvision's RandomCrop pads): (dy, dx) in
[0, 2 * PADDING] is its upper left corner, (PADDING, PADDING) leaves the image as it is. A flip mirrors left and right
and comes before the crop.

There are two gathers, which give the same pixels: `WindowGather` for CPUs, where a row of the crop is one copy of
C * W bytes, and `gather_pixels` for devices that gather single pixels in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from raydistill.datasets.arrays import GREY, RESIZED_CROP
from raydistill.datasets.preprocessing import Preprocessing
from raydistill.datasets.split import raw_stream, seeded_permutation

PADDING = 4
_ORDER, _AUGMENT = 0, 1


@dataclass(frozen=True)
class EpochDraw:
    """What chance decides in one epoch. order: int64 positions; dy, dx, flip: one value for each entry of `order`."""

    order: np.ndarray
    dy: np.ndarray
    dx: np.ndarray
    flip: np.ndarray


def draw_epoch(count: int, augment: str, seed: int, epoch: int) -> EpochDraw:
    """Order, crops and flips of `count` images: a function of its arguments only, so a resumed run sees the same.

    augment: of a dataset; one's own stands for no crops and no flips here.
    """
    order = seeded_permutation(count, seed, epoch, _ORDER)
    if augment == "none" or ":" in augment:
        middle: np.ndarray = np.full(count, PADDING, dtype=np.int64)
        return EpochDraw(order, middle, middle, np.zeros(count, dtype=bool))
    bits = raw_stream(count, seed, epoch, _AUGMENT)
    if augment == RESIZED_CROP:  # the part of a file depends on its size: each gets a seed to draw it with
        return EpochDraw(
            order, (bits >> np.uint64(1)).astype(np.int64), np.zeros(count, np.int64), bits & np.uint64(1) == 1
        )
    side = np.uint64(2 * PADDING + 1)
    dy = (bits % side).astype(np.int64)
    dx = (bits // side % side).astype(np.int64)
    # the top bit: the lower ones decided the crop
    flip = bits >> np.uint64(63) == 1 if augment == "crop_flip" else np.zeros(count, dtype=bool)
    return EpochDraw(order, dy, dx, flip)


class WindowGather:
    """Crops on the CPU, at memory speed: keeps one padded batch and reads windows of C * W bytes out of it."""

    def __init__(
        self, batch: int, height: int, width: int, channels: int = 3, dtype: torch.dtype = torch.uint8
    ) -> None:
        self._shape = (batch, height, width, channels)
        self._padded = torch.zeros(batch, height + 2 * PADDING, width + 2 * PADDING, channels, dtype=dtype)
        self._stride = width + 2 * PADDING
        starts = self._padded.numel() // channels - width + 1
        # one item a window: numpy then copies a whole row of the crop as a single element
        self._windows: np.ndarray = np.ndarray(
            (starts,),
            f"V{channels * width * dtype.itemsize}",
            self._padded.numpy(),
            strides=(channels * dtype.itemsize,),
        )
        self._images: np.ndarray = np.arange(batch)[:, None] * (height + 2 * PADDING) * self._stride
        self._rows: np.ndarray = np.arange(height) * self._stride

    def __call__(self, images: torch.Tensor, dy: np.ndarray, dx: np.ndarray, flipped: int) -> torch.Tensor:
        """images: (B, H, W, 3) with B up to the batch; the first `flipped` are mirrored. Gives a new (B, H, W, 3)."""
        count = len(images)
        _, height, width, channels = self._shape
        inner = self._padded[:count, PADDING : PADDING + height, PADDING : PADDING + width]
        inner[:flipped] = images[:flipped].flip(2)
        inner[flipped:] = images[flipped:]
        start = self._images[:count] + (dy * self._stride + dx)[:, None] + self._rows
        crops = self._windows[start].view(self._padded.numpy().dtype).reshape(count, height, width, channels)
        return torch.from_numpy(crops)


def gather_pixels(images: torch.Tensor, dy: torch.Tensor, dx: torch.Tensor, flip: torch.Tensor) -> torch.Tensor:
    """Crops of (B, H, W, 3) by an index for each pixel, on any device; dy, dx int64 (B,), flip bool (B,)."""
    count, height, width, channels = images.shape
    y = torch.arange(height, device=images.device) + (dy - PADDING)[:, None]
    x = torch.arange(width, device=images.device) + (dx - PADDING)[:, None]
    inside = ((y >= 0) & (y < height))[:, :, None] & ((x >= 0) & (x < width))[:, None, :]
    x = torch.where(flip[:, None], width - 1 - x, x).clamp_(0, width - 1)
    image = torch.arange(count, device=images.device)[:, None, None]
    pixel = (image * height + y.clamp_(0, height - 1)[:, :, None]) * width + x[:, None, :]
    crops = images.reshape(-1, channels).index_select(0, pixel.reshape(-1)).view(count, height, width, channels)
    return crops * inside[..., None]


class Fit:
    """Batches of a dataset's images as a network wants them: uint8 (B, H, W, C) in its size and channels.

    Images that were decoded in another size are resized here, antialiased: the shorter side and the middle of it, or
    the whole, as its preprocessing says.
    """

    def __init__(self, given: Preprocessing, wanted: Preprocessing) -> None:
        self._given, self._wanted = given, wanted

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        source, target = self._given.channels, self._wanted.channels
        if self._given.image_size != self._wanted.image_size:
            images = self._resized(images)
        if source == target:
            return images
        if source == "bgr":
            images = images.flip(3)
        if target == "grey":
            weights = torch.tensor(GREY, dtype=torch.int32, device=images.device)
            return (((images.int() * weights).sum(3, keepdim=True) + 0x8000) >> 16).to(torch.uint8)
        if source == "grey":
            return images.expand(-1, -1, -1, 3)
        return images.flip(3) if target == "bgr" else images

    def _resized(self, images: torch.Tensor) -> torch.Tensor:
        # imported here: torchvision takes seconds that a trial on arrays does not have to spend
        from torchvision.transforms.v2 import InterpolationMode, functional

        wanted = self._wanted
        mode = InterpolationMode(wanted.interpolation)
        batch = images.permute(0, 3, 1, 2)
        size = list(wanted.image_size) if wanted.resize is None else [wanted.resize]
        batch = functional.resize(batch, size, mode, antialias=True)
        return functional.center_crop(batch, list(wanted.image_size)).permute(0, 2, 3, 1).contiguous()


class Normalise:
    """uint8 (B, H, W, 3) to float32 (B, 3, H, W): pixel / 255, minus mean, over std, per channel."""

    def __init__(
        self, mean: tuple[float, ...], std: tuple[float, ...], shape: tuple[int, int], device: torch.device,
        channels_last: bool,
    ) -> None:  # fmt: skip
        spread = torch.tensor(std, dtype=torch.float64)
        pixels = shape[0] * shape[1]
        # one factor a value of the image: broadcasting over a last dimension of 3 would not vectorise
        self._scale = (1 / (255 * spread)).float().repeat(pixels).to(device)
        self._shift = (-torch.tensor(mean, dtype=torch.float64) / spread).float().repeat(pixels).to(device)
        self._channels_last = channels_last

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        values = images.reshape(len(images), -1).float().mul_(self._scale).add_(self._shift)
        batch = values.view(images.shape).permute(0, 3, 1, 2)  # (N, H, W, C) in memory is channels_last as it stands
        return batch if self._channels_last else batch.contiguous()
