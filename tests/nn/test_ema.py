"""The teacher: both ends of the momentum exactly, no gradients, buffers."""

import numpy as np
import pytest
import torch
from torch import nn

from frugalseg.nn.ema import EMATeacher


def _net(seed=0, outputs=3):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.GELU(), nn.Linear(5, outputs))


def _values(module):
    return {name: value.detach().clone() for name, value in module.named_parameters()}


@pytest.fixture
def pair():
    """A teacher and a student that has learned since."""
    student = _net()
    teacher = EMATeacher(student)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter))
    return teacher, student


def test_starts_as_the_student():
    student = _net(0)
    for teacher in (EMATeacher(student), EMATeacher(student, _net(1))):
        own = _values(teacher.module)
        assert all(torch.equal(own[name], value) for name, value in student.named_parameters())
        assert all(one is not other for one, other in zip(teacher.parameters(), student.parameters(), strict=True))


def test_momentum_one_leaves_and_zero_copies(pair):
    teacher, student = pair
    before, theirs = _values(teacher.module), _values(student)
    assert any(not torch.equal(before[name], theirs[name]) for name in before)
    teacher.update(student, 1.0)
    after = _values(teacher.module)
    assert all(torch.equal(after[name], before[name]) for name in before)
    teacher.update(student, 0.0)
    after = _values(teacher.module)
    assert all(torch.equal(after[name], theirs[name]) for name in before)


def test_average_equals_a_loop(pair):
    teacher, student = pair
    teacher, student = teacher.double(), student.double()
    expected = {name: value.numpy() for name, value in _values(teacher.module).items()}
    theirs = {name: value.numpy() for name, value in _values(student).items()}
    for momentum in (0.9, 0.3, 0.996):
        teacher.update(student, momentum)
        expected = {name: momentum * value + (1 - momentum) * theirs[name] for name, value in expected.items()}
    for name, value in _values(teacher.module).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-12, atol=1e-14)
    assert all(torch.equal(value, torch.from_numpy(theirs[name])) for name, value in student.named_parameters())


def test_no_gradient_reaches_the_teacher(pair):
    teacher, student = pair
    x = torch.randn(6, 4, requires_grad=True)
    found = teacher(x)
    assert not found.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    ((student(x) - found) ** 2).sum().backward()
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.grad is not None for parameter in student.parameters())
    teacher.update(student, 0.5)
    assert all(parameter.is_leaf and parameter.grad_fn is None for parameter in teacher.parameters())


def test_buffers_stay_or_are_copied(pair):
    teacher, student = pair
    student.train()(torch.randn(6, 4) + 3)
    theirs = dict(student.named_buffers())
    own = {name: value.clone() for name, value in teacher.module.named_buffers()}
    assert own
    teacher.update(student, 0.0)
    assert all(torch.equal(value, own[name]) for name, value in teacher.module.named_buffers())
    teacher.update(student, 1.0, buffers=True)
    assert all(torch.equal(value, theirs[name]) for name, value in teacher.module.named_buffers())
    assert any(not torch.equal(own[name], theirs[name]) for name in own)


def test_state_comes_back(pair):
    teacher, student = pair
    teacher.update(student, 0.7)
    other = EMATeacher(_net(5))
    other.load_state_dict(teacher.state_dict())
    x = torch.randn(6, 4)
    assert torch.equal(other.eval()(x), teacher.eval()(x))


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_a_momentum_out_of_range_is_refused(pair, momentum):
    with pytest.raises(ValueError, match="momentum"):
        pair[0].update(pair[1], momentum)


def test_another_net_is_no_teacher():
    with pytest.raises(ValueError, match="teacher"):
        EMATeacher(_net(), _net(outputs=4))
