"""Sums of what layers read, and the factor of the inverse of a damped one."""

from __future__ import annotations

import pytest
import torch

from raydistill.compression.calibration import PRODUCTS, SQUARES, Sums, inverse_factor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_batches_add_up_to_what_all_of_them_together_are(dtype: torch.dtype) -> None:
    read = torch.randn(2, 60, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    products, squares = Sums(PRODUCTS), Sums(SQUARES)
    for part in (read[:, :7], read[:, 7:40], read[:, 40:]):
        products.add(part)
        squares.add(part)
    whole = read.double()
    assert products.total is not None
    assert (products.total.dtype, products.samples, squares.samples) == (torch.float64, 60, 60)
    torch.testing.assert_close(products.total, whole.mT @ whole, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(squares.squares, whole.square().sum(1), atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(products.squares, squares.squares, atol=1e-4, rtol=1e-5)


def test_the_factor_is_that_of_the_inverse() -> None:
    read = torch.randn(50, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    hessian = read.T @ read
    factor = inverse_factor(hessian, 0.1)
    damped = hessian + 0.1 * hessian.diagonal().mean() * torch.eye(6, dtype=torch.float64)
    torch.testing.assert_close(factor.T @ factor, torch.linalg.inv(damped))
    assert torch.equal(factor, factor.triu())


def test_a_singular_one_is_damped_more_and_what_is_never_read_stands_by_itself() -> None:
    copies = torch.ones(4, 4, dtype=torch.float64)
    copies[3] = copies[:, 3] = 0.0
    factor = inverse_factor(copies, 1e-18)
    assert bool(factor.isfinite().all())
    assert factor[3].tolist() == [0.0, 0.0, 0.0, 1.0]
    assert torch.equal(inverse_factor(torch.zeros(3, 3, dtype=torch.float64)), torch.eye(3, dtype=torch.float64))
