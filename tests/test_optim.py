"""The schedule and the optimiser against a loop."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frugalseg.optim import poly_factor, poly_sgd, trainable


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 1000), st.integers(0, 2000), st.floats(0.1, 3))
def test_poly_factor(total, step, power):
    factor = poly_factor(step, total, power)
    last = min(step, total - 1)
    np.testing.assert_allclose(factor, np.exp(power * np.log((total - last) / total)), rtol=1e-9)
    assert 0 < factor <= 1
    assert poly_factor(step + 1, total, power) <= factor


def test_poly_factor_begins_at_one_and_stays_at_the_last_steps():
    assert poly_factor(0, 7) == 1
    assert poly_factor(7, 7) == poly_factor(6, 7) == poly_factor(100, 7)
    assert poly_factor(6, 7) < poly_factor(5, 7)


@pytest.mark.parametrize("total", [0, -3])
def test_a_schedule_without_steps_is_refused(total):
    with pytest.raises(ValueError, match=str(total)):
        poly_factor(0, total)


def test_trainable_keeps_order_and_leaves_frozen_ones_out():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[0].requires_grad_(False)
    assert [id(p) for p in trainable(net.parameters())] == [id(net[1].weight), id(net[1].bias)]


@pytest.mark.parametrize("momentum", [1e-4, 0.9])
def test_poly_sgd_equals_a_loop(momentum):
    total, decay, power = 6, 0.01, 0.9
    rng = np.random.default_rng(0)
    start = [rng.standard_normal(3), rng.standard_normal(2), rng.standard_normal(2)]
    slopes = rng.standard_normal((total + 2, 3, 3))
    parameters = [nn.Parameter(torch.as_tensor(s)) for s in start]
    optimiser, schedule = poly_sgd([(parameters[:1], 0.1), (parameters[1:], 1.0)], total, decay, momentum, power)
    values, velocity = [s.copy() for s in start], [0.0, 0.0, 0.0]
    for step in range(total + 2):
        factor = ((total - min(step, total - 1)) / total) ** power
        optimiser.zero_grad()
        for index in (0, 1):  # the third never gets a gradient
            parameters[index].grad = torch.as_tensor(slopes[step, index, : len(start[index])].copy())
            rate = (0.1, 1.0)[index] * factor
            force = slopes[step, index, : len(start[index])] + decay * values[index]
            velocity[index] = force if step == 0 else momentum * velocity[index] + force
            values[index] = values[index] - rate * velocity[index]
        optimiser.step()
        schedule.step()
        for parameter, value in zip(parameters, values, strict=True):
            np.testing.assert_allclose(parameter.detach(), value, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(parameters[2].detach(), start[2])
