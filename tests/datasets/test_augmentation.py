"""An augmentation of one's own: tried before it is used, and drawn by (seed, epoch, batch) alone."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from raydistill.datasets.augmentation import Augmentation, batch_generator, own_augmentation
from raydistill.errors import ConfigError, TrainingError

IMAGES = torch.arange(4 * 3 * 8 * 8).remainder(251).to(torch.uint8).reshape(4, 3, 8, 8)


def _flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(3), images)


def _fails(images: Tensor, generator: torch.Generator) -> Tensor:
    raise ZeroDivisionError("of mine")


FLIPPED = Augmentation("flipped", _flipped)
FAILS = Augmentation("fails", _fails)
FLOATS = Augmentation("floats", lambda images, generator: images.float())
SMALLER = Augmentation("smaller", lambda images, generator: images[..., :-1])
NOTHING = Augmentation("nothing", lambda images, generator: None)  # type: ignore[arg-type,return-value]
ELSEWHERE = Augmentation("elsewhere", lambda images, generator: torch.randint_like(images, 256))
OTHER = "no augmentation"
HERE = "tests.datasets.test_augmentation"


def test_what_it_draws_is_the_generators_alone() -> None:
    first, again = (FLIPPED(IMAGES, batch_generator(5, 2, 0, 1)) for _ in range(2))
    assert torch.equal(first, again)
    for image, changed in zip(IMAGES, first, strict=True):
        assert torch.equal(changed, image) or torch.equal(changed, image.flip(2))
    assert own_augmentation(f"{HERE}:FLIPPED").name == "flipped"


def test_each_batch_of_each_epoch_and_seed_has_a_chance_of_its_own() -> None:
    drawn = {
        key: tuple(torch.rand(4, generator=batch_generator(6, *key)).tolist())
        for key in itertools.product(range(6), range(3), range(3))
    }
    assert len(set(drawn.values())) == len(drawn) == 54
    flips = torch.cat([torch.rand(50, generator=batch_generator(40, batch, 7, 0)) < 0.5 for batch in range(40)])
    assert float(flips.float().mean()) == pytest.approx(0.5, abs=4 * 0.5 / 2000**0.5)


@pytest.mark.parametrize(
    ("own", "rule"),
    [
        (FAILS, "dataset.augment: fails fails (ZeroDivisionError: of mine)"),
        (FLOATS, "floats must give uint8 images of the shape it gets, (4, 3, 8, 8), got 'torch.float32 (4, 3, 8, 8)'"),
        (SMALLER, "smaller must give uint8 images of the shape it gets, (4, 3, 8, 8), got 'torch.uint8 (4, 3, 8, 7)'"),
        (NOTHING, "nothing must give uint8 images of the shape it gets, (4, 3, 8, 8), got 'NoneType'"),
    ],
)
def test_what_is_no_such_change_ends_the_run_in_a_line(own: Augmentation, rule: str) -> None:
    with pytest.raises(TrainingError) as caught:
        own(IMAGES, torch.Generator())
    assert rule in str(caught.value)
    with pytest.raises(ConfigError) as before:  # and is found before it
        own_augmentation(f"{HERE}:{own.name.upper()}")
    assert rule in str(before.value)


def test_another_generator_is_found_before_a_run_begins_and_left_as_it_was() -> None:
    state = torch.get_rng_state()
    rule = "elsewhere must be a function of its images and its generator: of the same it gives others"
    with pytest.raises(ConfigError, match=rule):
        own_augmentation(f"{HERE}:ELSEWHERE")
    assert torch.equal(torch.get_rng_state(), state)


def test_another_object_is_none() -> None:
    with pytest.raises(ConfigError, match=r"dataset.augment: .*OTHER"):
        own_augmentation(f"{HERE}:OTHER")
