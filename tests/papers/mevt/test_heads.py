"""Heads and prototypes of mevt.md c.1 against NumPy; precision; batches of one."""

import copy
import math

import numpy as np
import pytest
import torch

from frugalseg.papers.mevt.heads import Head, Prototypes, unit


def rows(count, width, dtype=torch.float64, seed=1):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def woken(module):
    torch.manual_seed(0)
    for p in module.parameters():
        torch.nn.init.normal_(p, mean=0.1, std=0.5)
    return module.double()


def standard(x, weight=1.0, bias=0.0):
    return (x - x.mean(0)) / np.sqrt(((x - x.mean(0)) ** 2).mean(0) + 1e-5) * weight + bias


def oracle(head, x, norm):
    """As `projection`; l2-norm."""
    return np.array([row / math.sqrt(sum(row**2)) for row in projection(head, x, norm)])


def projection(head, x, norm):
    """Linear, (batch norm), GELU for each hidden layer; linear, (batch norm without weights)."""
    p = [value.detach().numpy() for value in head.parameters()]
    while len(p) > 2:
        x = x @ p[0].T + p[1]
        p = p[2:]
        if norm:
            x, p = standard(x, p[0], p[1]), p[2:]
        x = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))(x)
    x = x @ p[0].T + p[1]
    return standard(x) if norm else x


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("hidden", [(), (7,), (7, 9)])
def test_head(hidden, norm):
    head, x = woken(Head(5, hidden, 4, norm=norm)), rows(6, 5)
    np.testing.assert_allclose(head(x).detach().numpy(), oracle(head, x.numpy(), norm), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("hidden", "outputs", "inputs", "parameters"),
    [
        ((2048, 2048), 256, 512, 512 * 2048 + 2048 * 2048 + 2048 * 256 + 2048 * 2 + 256),
        ((1024,), 256, 256, 256 * 1024 + 1024 * 256 + 1024 + 256),
        ((512,), 128, 256, 256 * 512 + 512 * 128 + 512 + 128),
    ],
)
def test_full_scale(hidden, outputs, inputs, parameters):
    assert sum(p.numel() for p in Head(inputs, hidden, outputs).parameters()) == parameters
    # a batch norm has a weight and a bias per hidden channel, the last one has none
    normed = Head(inputs, hidden, outputs, norm=True)
    assert sum(p.numel() for p in normed.parameters()) == parameters + 2 * sum(hidden)


def test_initialisation():
    """As the net's (mevt.md b.6)."""
    for layer in Head(64, (128,), 96, norm=True).layers:
        if isinstance(layer, torch.nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert (layer.bias == 0).all()


def test_prototypes_are_cosines():
    prototypes, x = Prototypes(4, 7).double(), unit(rows(6, 4))
    torch.testing.assert_close(prototypes.weight.norm(dim=1), torch.ones(7, dtype=torch.float64), rtol=1e-6, atol=0)
    with torch.no_grad():
        prototypes.weight *= torch.arange(1, 8)[:, None]
    expected = [[np.dot(a, w) / math.sqrt(sum(w**2)) for w in prototypes.weight.detach().numpy()] for a in x.numpy()]
    np.testing.assert_allclose(prototypes(x).detach().numpy(), expected, rtol=1e-10, atol=1e-10)
    assert [name for name, _ in prototypes.named_parameters()] == ["weight"]


def test_the_length_of_a_prototype_gets_no_gradient():
    prototypes = Prototypes(4, 7).double()
    prototypes(unit(rows(6, 4))).sin().sum().backward()
    along = (prototypes.weight.grad * prototypes.weight).sum(dim=1)
    assert prototypes.weight.grad.abs().max() > 1e-3
    assert along.abs().max() < 1e-12


@pytest.mark.parametrize("norm", [False, True])
def test_norms_and_cosines_are_float32_under_autocast(norm):
    head, prototypes, x = Head(32, (16,), 8, norm=norm), Prototypes(8, 5), rows(12, 32, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        embedding = head(x)
        cosines = prototypes(embedding)
    assert embedding.dtype == cosines.dtype == torch.float32
    # in bfloat16 both would be off by 1e-3
    torch.testing.assert_close(embedding.norm(dim=1), torch.ones(12), rtol=1e-6, atol=0)
    torch.testing.assert_close(cosines, embedding @ prototypes.weight.T, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_prototypes_take_half_precision(dtype):
    cosines = Prototypes(8, 5)(unit(rows(3, 8)).to(dtype))
    assert cosines.dtype == torch.float32


def test_one_row_cannot_train_with_batch_norms():
    head, x = Head(5, (7,), 4, norm=True), rows(1, 5, torch.float32)
    with pytest.raises(ValueError, match="BatchNorm cannot train on 1 row: use a batch of 2 or more") as caught:
        head(x)
    assert "\n" not in str(caught.value)
    assert head.eval()(x).isfinite().all()
    assert Head(5, (7,), 4)(x).isfinite().all()


def test_a_teacher_in_training_mode_uses_the_rows_at_hand():
    """Its running statistics play no part (mevt.md c.1)."""
    head = Head(5, (7,), 4, norm=True)
    teacher, x = copy.deepcopy(head), rows(6, 5, torch.float32)
    for buffer in teacher.buffers():
        buffer.add_(1)
    torch.testing.assert_close(teacher(x), head(x), rtol=0, atol=0)
