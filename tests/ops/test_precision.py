"""Half precision is widened, nothing else is touched."""

import pytest
import torch

from frugalseg.ops.precision import at_least_float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype):
    x = torch.randn(5).to(dtype)
    assert at_least_float32(x).dtype == torch.float32 and torch.equal(at_least_float32(x).to(dtype), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_wider_types_are_returned_themselves(dtype):
    x = torch.randn(5, dtype=dtype)
    assert at_least_float32(x) is x
