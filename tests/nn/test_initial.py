"""Initial numbers of transformers."""

import torch
from torch import nn

from frugalseg.nn.initial import STD, small_normal_


def test_they_are_those_of_torch():
    torch.manual_seed(3)
    expected = nn.init.trunc_normal_(torch.empty(40, 30), std=STD)
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(small_normal_(torch.empty(40, 30)), expected)
    assert torch.equal(torch.rand(3), after)  # and no number more is drawn


def test_a_weight_at_the_cut_is_drawn_again(monkeypatch):
    real = nn.init.trunc_normal_

    def faulty(tensor, std):
        with torch.no_grad():
            real(tensor, std=std)
            tensor[0, 0], tensor[5, 7] = 2.0, -2.0
        return tensor

    monkeypatch.setattr(nn.init, "trunc_normal_", faulty)
    weight = small_normal_(nn.Parameter(torch.empty(40, 30)))
    assert weight.requires_grad and weight.abs().max() < 10 * STD
    assert weight[0, 0] != 0 and 0.9 * STD < weight.std() < 1.1 * STD
