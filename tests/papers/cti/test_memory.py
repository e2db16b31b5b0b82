"""The class memory against lists, and the pairing against loops."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.errors import CheckpointError
from frugalseg.papers.cti.memory import ClassMemory, paired_tokens

CLASSES, DIM = 3, 4
BATCHES = st.lists(
    hnp.arrays(np.int8, st.tuples(st.integers(1, 9), st.just(CLASSES)), elements=st.integers(0, 1)),
    min_size=1,
    max_size=5,
)


def tokens_for(tags, number=0):
    return torch.randn(*tags.shape, DIM, generator=torch.Generator().manual_seed(number), dtype=torch.float64)


@settings(deadline=None, max_examples=60)
@given(BATCHES, st.integers(1, 4))
def test_the_ring_equals_lists_of_the_newest(batches, size):
    """Also where one batch brings more entries of a class than there are slots."""
    memory, lists = ClassMemory(CLASSES, DIM, size).double(), [[] for _ in range(CLASSES)]
    for number, tags in enumerate(batches):
        tokens = tokens_for(tags, number)
        memory.update(tokens, torch.as_tensor(tags))
        for image, present in enumerate(tags):
            for c in np.nonzero(present)[0]:
                lists[c] = [*lists[c], F.layer_norm(tokens[image, c], (DIM,))][-size:]
    for c, entries in enumerate(lists):
        assert int(memory.filled[c]) == len(entries)
        expected = torch.stack(entries) if entries else torch.zeros(0, DIM, dtype=torch.float64)
        assert torch.equal(memory.entries(c), expected)
        mean = expected.mean(dim=0) if entries else torch.zeros(DIM, dtype=torch.float64)
        torch.testing.assert_close(memory.prototypes()[c], mean, rtol=0, atol=1e-12)
    assert memory.is_full() == all(len(entries) == size for entries in lists)


def test_the_order_of_a_class_is_that_of_the_images():
    memory = ClassMemory(1, DIM, 5)
    tokens = torch.randn(3, 1, DIM)
    memory.update(tokens, torch.tensor([[1], [0], [1]]))
    torch.testing.assert_close(memory.entries(0), F.layer_norm(tokens[[0, 2], 0], (DIM,)))


def test_absent_classes_are_infused_with_themselves_and_nothing_carries_a_gradient():
    memory = ClassMemory(2, DIM)
    tokens = torch.randn(2, 2, DIM, requires_grad=True)
    tags = torch.tensor([[1, 0], [0, 0]])
    memory.update(tokens, tags)
    infused = memory.infusion(tokens, tags)
    assert not infused.requires_grad
    torch.testing.assert_close(infused[0, 0], memory.prototypes()[0])
    assert torch.equal(infused[1], tokens[1].detach()) and torch.equal(infused[0, 1], tokens[0, 1].detach())


def test_a_batch_without_any_tag_leaves_the_memory_alone():
    memory = ClassMemory(CLASSES, DIM, 2)
    memory.update(torch.randn(2, CLASSES, DIM), torch.ones(2, CLASSES))
    before = {name: t.clone() for name, t in memory.state_dict().items()}
    memory.update(torch.randn(2, CLASSES, DIM), torch.zeros(2, CLASSES))
    assert all(torch.equal(t, before[name]) for name, t in memory.state_dict().items())


@pytest.mark.parametrize(("classes", "size"), [(CLASSES + 1, 30), (CLASSES, 29)])
def test_the_memory_of_another_net_is_refused_in_words(classes, size):
    with pytest.raises(
        CheckpointError, match=rf"holds {classes} classes x {size} entries .* settings say {CLASSES} cl"
    ):
        ClassMemory(CLASSES, DIM).load_state_dict(ClassMemory(classes, DIM, size).state_dict())


@settings(deadline=None, max_examples=60)
@given(hnp.arrays(np.int8, st.tuples(st.integers(1, 6), st.just(CLASSES)), elements=st.integers(0, 1)))
def test_pairs_are_the_next_image_with_the_class(tags):
    tokens = tokens_for(tags)
    found, batch = paired_tokens(tokens, torch.as_tensor(tags)), len(tags)
    for b in range(batch):
        for c in range(CLASSES):
            others = [(b + step) % batch for step in range(1, batch) if tags[(b + step) % batch, c]]
            partner = others[0] if tags[b, c] and others else b
            assert torch.equal(found[b, c], tokens[partner, c])
