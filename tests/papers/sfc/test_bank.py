"""The image bank against a dictionary of slots."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from frugalseg.papers.sfc import SFC
from frugalseg.papers.sfc.bank import ImageBank

CLASSES = 4
SMALL = {"layers": [1, 1, 1, 1], "channels": [4, 6, 8, 10]}


def batch(tags, first=1, side=3):
    """Images, tags and boxes that carry the number of their image everywhere."""
    tags = torch.as_tensor(np.asarray(tags), dtype=torch.float32)
    numbers = torch.arange(first, first + len(tags))
    image = numbers.float().view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()
    return image, tags, torch.stack([numbers * 10 + i for i in range(4)], dim=1)


def task(**settings):
    torch.manual_seed(0)
    return SFC(CLASSES + 1, "resnet18", None, side=(2, 2, 2, 2), backbone_options=SMALL, **settings)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        hnp.arrays(np.int8, st.tuples(st.integers(1, 4), st.just(CLASSES)), elements=st.integers(0, 1)),
        min_size=1,
        max_size=4,
    ),
    st.data(),
)
def test_the_bank_equals_a_dictionary(batches, data):
    bank, slots, first = ImageBank(CLASSES), {}, 1
    for tags in batches:
        image, labels, box = batch(tags, first)
        first += len(tags)
        bank.update(image, labels, box)
        for i in range(len(tags)):
            for c in range(CLASSES):
                if tags[i][c]:
                    slots[c] = (image[i], labels[i], box[i])
    empty = (torch.zeros(3, 3, 3), torch.zeros(CLASSES), torch.zeros(4, dtype=torch.int64))
    picks = data.draw(st.lists(st.integers(0, CLASSES - 1), min_size=1, max_size=6))
    drawn = bank.draw(torch.tensor(picks))
    for row, pick in enumerate(picks):
        for ours, expected in zip(drawn, slots.get(pick, empty), strict=True):
            assert torch.equal(ours[row], expected)
            assert ours.dtype == expected.dtype


def test_slots_never_filled_are_zero_with_an_empty_box():
    bank = ImageBank(CLASSES)
    bank.update(*batch([[1, 0, 0, 0]]))
    image, tags, box = bank.draw(torch.tensor([0, 1, 2, 3]))
    assert image[0].abs().min() > 0
    assert not image[1:].any()
    assert not tags[1:].any()
    assert not box[1:].any()


def test_a_later_image_wins_and_one_image_may_fill_several_slots():
    bank = ImageBank(CLASSES)
    bank.update(*batch([[1, 1, 0, 0], [0, 1, 0, 1]]))
    assert bank.image[:, 0, 0, 0].tolist() == [1, 2, 0, 2]
    bank.update(*batch([[1, 0, 0, 0], [1, 0, 0, 0]], first=3))
    assert bank.image[:, 0, 0, 0].tolist() == [4, 2, 0, 2]
    # the full label vector is kept, not the slot's class alone
    assert bank.tags[3].tolist() == [0, 1, 0, 1]
    assert bank.box[:, 0].tolist() == [40, 20, 0, 20]


def test_entries_do_not_follow_the_batch_they_came_from():
    bank = ImageBank(CLASSES)
    image, tags, box = batch([[1, 0, 0, 0]])
    bank.update(image, tags, box)
    for tensor in (image, tags, box):
        tensor.zero_()
    assert bank.image[0].min() == 1
    assert bank.tags[0, 0] == 1
    assert bank.box[0, 0] == 10
    assert not bank.image.requires_grad


def test_state_survives_with_another_crop_size():
    old = ImageBank(CLASSES)
    old.update(*batch([[1, 0, 0, 1], [0, 1, 0, 0]], side=5))
    fresh, used = ImageBank(CLASSES), ImageBank(CLASSES)
    used.update(*batch([[1, 1, 1, 1]], first=9, side=3))
    for bank in (fresh, used):
        bank.load_state_dict(old.state_dict())
        for name, tensor in old.state_dict().items():
            assert torch.equal(bank.state_dict()[name], tensor), name
    # a copy, not the same storage
    fresh.update(*batch([[1, 1, 1, 1]], first=7, side=5))
    assert old.image[0, 0, 0, 0] == 1


def test_an_empty_bank_can_be_restored_too():
    used = ImageBank(CLASSES)
    used.update(*batch([[1, 1, 1, 1]]))
    used.load_state_dict(ImageBank(CLASSES).state_dict())
    assert used.image.numel() == 0
    assert not used.tags.any()


def test_a_new_crop_size_empties_slots_altogether():
    bank = ImageBank(CLASSES)
    bank.update(*batch([[1, 1, 0, 0]], side=5))
    bank.update(*batch([[1, 0, 0, 0]], first=2, side=3))
    assert not bank.image[1].any()
    assert not bank.tags[1].any()
    assert not bank.box[1].any()
    # slot 0 has been filled again
    assert bank.image[0, 0, 0, 0] == 2
    assert bank.tags[0].tolist() == [1, 0, 0, 0]
    assert bank.box[0, 0] == 20


# ---------------------------------------------------------------------- through the task


def filled(seed=0, **settings):
    """A task whose bank has every slot filled by another image."""
    ours = task(seed=seed, **settings)
    ours.bank.update(*batch(np.eye(CLASSES), first=100))
    return ours


def draws(ours, step):
    """Numbers of the images that a step appends; its fresh batch has no tags, so the bank stays as it is."""
    image, tags, box = ours.extend_from_bank(*batch(np.zeros((2, CLASSES))), step)
    assert image[:2, 0, 0, 0].tolist() == [1, 2]
    numbers = image[2:, 0, 0, 0]
    assert torch.equal(box[2:, 0], numbers.long() * 10)
    assert torch.equal(tags[2:].argmax(dim=1), numbers.long() - 100)
    return numbers.tolist()


def test_draws_depend_on_seed_and_step_alone():
    first, second = filled(), filled()
    torch.manual_seed(1)
    forwards = {step: draws(first, step) for step in range(20)}
    torch.manual_seed(2)
    backwards = {step: draws(second, step) for step in reversed(range(20))}
    assert forwards == backwards
    assert len({tuple(d) for d in forwards.values()}) > 5
    assert any(forwards[step] != draws(filled(seed=1), step) for step in range(5))
    assert {number for d in forwards.values() for number in d} == {100.0, 101.0, 102.0, 103.0}


def test_drawing_leaves_the_global_generator_alone():
    ours = filled()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    draws(ours, 0)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("number", [1, 4, 7])
def test_the_number_of_draws(number):
    assert len(draws(filled(bank_draws=number), 0)) == number


def test_the_fresh_batch_can_be_drawn_at_once():
    """Drawing comes after the update (sfc.md section 3)."""
    ours = task(bank_draws=8)
    image, tags, _ = ours.extend_from_bank(*batch(np.eye(CLASSES)), 0)
    assert torch.equal(image[4:, 0, 0, 0] - 1, tags[4:].argmax(dim=1).float())
    assert image[4:].min() >= 1


def test_no_draws_no_bank():
    ours = task(bank_draws=0)
    given_batch = batch(np.eye(CLASSES))
    assert all(a is b for a, b in zip(ours.extend_from_bank(*given_batch, 0), given_batch, strict=True))
    assert ours.bank.image.numel() == 0


def test_filling_and_drawing_begin_when_told():
    ours = task(bank_start=2, calibration_start=4)
    lengths, fill = [], []
    for step in range(6):
        lengths.append(len(ours.extend_from_bank(*batch(np.eye(CLASSES)), step)[0]))
        fill.append(bool(ours.bank.tags.any()))
    assert lengths == [4, 4, 4, 4, 8, 8]
    assert fill == [False, False, True, True, True, True]


def test_the_bank_is_kept_in_checkpoints(tmp_path):
    ours = filled()
    torch.save({"state_dict": ours.state_dict()}, tmp_path / "a.ckpt")
    other = task()
    other.load_state_dict(torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"])
    assert other.bank.image.shape == ours.bank.image.shape
    assert [draws(other, step) for step in range(4)] == [draws(ours, step) for step in range(4)]
    assert {name for name in ours.state_dict() if name.startswith("bank.")} == {"bank.image", "bank.tags", "bank.box"}
