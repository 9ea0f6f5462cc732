"""Memory that ran out is one line; whatever else is wrong passes as it is."""

from __future__ import annotations

import pytest
import torch

from raydistill.errors import TrainingError
from raydistill.training.memory import WAY_OUT, ran_out, said_plainly


def real() -> RuntimeError:
    """What torch's allocator of the CPU says of more than there is."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "is_it"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shapes cannot be multiplied"), False),
        (ValueError("out of memory"), False),  # somebody else's
    ],
)
def test_who_says_so(error: Exception, is_it: bool) -> None:
    assert ran_out(error) is is_it


def test_it_is_said_where_and_what_helps() -> None:
    error = real()
    assert ran_out(error)
    with pytest.raises(TrainingError) as caught, said_plainly("epoch 3", 64):
        raise error
    assert str(caught.value) == f"epoch 3: out of memory with batch_size 64; {WAY_OUT}"
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [RuntimeError("shapes"), KeyError("a"), KeyboardInterrupt()])
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, said_plainly("epoch 3", 64):
        raise error
    assert caught.value is error
