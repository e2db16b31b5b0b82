"""Kept features: equal to fresh ones, resumed image by image, whole or not there, refused above the limit."""

import json

import numpy as np
import pytest
import torch

from frugalseg.errors import ConfigError, DatasetError
from frugalseg.nn.features import FrozenBackbone
from frugalseg.stages.probe import CachedFeatures, CachedSplit, CacheWriter, LinearProbe, cache_digest, fill
from frugalseg.stages.probe.cache import cache_bytes
from frugalseg.stages.probe.cached import _Batches
from tests.stages.toys import CLASSES, SIDE, loader, own, trainer, world

GRID, SHAPE = 16, (6, 8, 8)


class Counting:
    """A backbone that counts what it was asked, and that may be unplugged."""

    def __init__(self, inner, stop=None):
        self.inner, self.stop, self.asked = inner, stop, 0
        self.width, self.multiple = inner.width, inner.multiple

    def dense(self, image):
        if self.asked == self.stop:
            raise KeyboardInterrupt
        self.asked += len(image)
        return self.inner.dense(image)


@pytest.fixture
def backbone():
    torch.manual_seed(3)
    return FrozenBackbone(own("Pooled"))


def writer(root, batches, limit=1 << 20, digest="d" * 64, shape=SHAPE, split="train"):
    return CacheWriter(root, split, [n for b in batches for n in b["id"]], shape, GRID, digest, limit)


def test_kept_features_are_the_fresh_ones_in_half_precision(tmp_path, backbone):
    batches = world(7, 1, "noise")
    assert fill(writer(tmp_path, batches), backbone, batches, SIDE, GRID) == 7
    split = CachedSplit(tmp_path, "train", "d" * 64)
    features, masks = split.rows(range(7))
    assert split.ids == [b["id"][0] for b in batches] and features.dtype == torch.float16
    for row, batch in enumerate(batches):
        assert torch.equal(features[row], backbone.dense(batch["image"])[0].half())
        assert torch.equal(masks[row], batch["mask"][0, ::2, ::2].to(torch.uint8))


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, backbone, monkeypatch):
    monkeypatch.setattr("frugalseg.stages.probe.cache.FLUSH_EVERY", 2)
    batches = world(7, 1, "noise")
    with pytest.raises(KeyboardInterrupt):
        fill(writer(tmp_path, batches), Counting(backbone, stop=5), batches, SIDE, GRID)
    with pytest.raises(DatasetError, match="no kept features"):
        CachedSplit(tmp_path, "train", "d" * 64)
    again = Counting(backbone)
    # the fifth was put but not yet brought to disk
    assert writer(tmp_path, batches).missing() == [b["id"][0] for b in batches[4:]]
    assert fill(writer(tmp_path, batches), again, batches, SIDE, GRID) == again.asked == 3
    straight = tmp_path / "straight"
    fill(writer(straight, batches), backbone, batches, SIDE, GRID)
    for name in ("features.npy", "masks.npy"):
        (one,), (two,) = tmp_path.glob(f"train-*/{name}"), straight.glob(f"train-*/{name}")
        assert one.read_bytes() == two.read_bytes()
    assert fill(writer(tmp_path, batches), Counting(backbone, stop=0), batches, SIDE, GRID) == 0


def test_an_unfinished_split_is_not_seen(tmp_path, backbone):
    batches = world(3, 1, "noise")
    short = writer(tmp_path, batches)
    short.put(batches[0]["id"][0], backbone.dense(batches[0]["image"])[0], torch.zeros(GRID, GRID))
    with pytest.raises(DatasetError, match="2 images lack features, first 1-1"):
        short.finish()
    assert [p.suffix for p in tmp_path.iterdir()] == [".part"]


def test_the_limit_names_the_size_and_the_setting(tmp_path):
    batches = world(3, 1, "noise")
    need = cache_bytes(3, SHAPE, GRID)
    assert need == 3 * (6 * 8 * 8 * 2 + 16 * 16)
    with pytest.raises(ConfigError, match=rf"3 images of split train take {need} bytes.*cache_limit = {need - 1};"):
        writer(tmp_path, batches, limit=need - 1)
    assert not list(tmp_path.iterdir())
    done = writer(tmp_path, batches, limit=need)
    arrays = [np.load(done.part / f"{name}.npy", mmap_mode="r").nbytes for name in ("features", "masks")]
    assert sum(arrays) == need


def test_another_net_size_or_data_is_another_cache(tmp_path, backbone):
    digest = cache_digest(backbone.digest(), "data", SIDE, GRID)
    others = {
        cache_digest(FrozenBackbone(own("Pooled")).digest(), "data", SIDE, GRID),
        cache_digest(backbone.digest(), "others", SIDE, GRID),
        cache_digest(backbone.digest(), "data", 64, GRID),
        cache_digest(backbone.digest(), "data", SIDE, 8),
    }
    assert len(others | {digest}) == 5
    batches = world(2, 1, "noise")
    fill(writer(tmp_path, batches, digest=digest), backbone, batches, SIDE, GRID)
    for other in others:
        with pytest.raises(DatasetError, match="no kept features"):
            CachedSplit(tmp_path, "train", other)


def test_a_part_of_other_images_is_begun_anew(tmp_path, backbone):
    first, second = world(3, 1, "noise"), world(3, 9, "noise")
    writer(tmp_path, first).flush()
    assert fill(writer(tmp_path, second), backbone, second, SIDE, GRID) == 3
    assert CachedSplit(tmp_path, "train", "d" * 64).ids == [b["id"][0] for b in second]


def test_a_damaged_index_is_not_trusted(tmp_path, backbone):
    batches = world(2, 1, "noise")
    fill(writer(tmp_path, batches), backbone, batches, SIDE, GRID)
    (index,) = tmp_path.glob("*/index.json")
    index.write_text(index.read_text()[:20])
    with pytest.raises(DatasetError, match="no kept features"):
        CachedSplit(tmp_path, "train", "d" * 64)
    assert fill(writer(tmp_path, batches), backbone, batches, SIDE, GRID) == 2
    assert json.loads(index.read_text())["ids"] == ["1-0", "1-1"]


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
    keep = writer(tmp_path, world(1, 1, "noise"))
    with pytest.raises(ConfigError, match="half precision"):
        keep.put("1-0", torch.full(SHAPE, 1e5), torch.zeros(GRID, GRID))
    with pytest.raises(ConfigError, match=r"\(6, 8, 9\) are not \(6, 8, 8\)"):
        keep.put("1-0", torch.zeros(6, 8, 9), torch.zeros(GRID, GRID))
    with pytest.raises(DatasetError, match="image x is not in the split"):
        keep.put("x", torch.zeros(SHAPE), torch.zeros(GRID, GRID))


def test_ranks_share_every_image_once():
    class Split:
        def __init__(self, n):
            self.n = n

        def __len__(self):
            return self.n

    seen = [_Batches(Split(11), 2, (rank, 3))._order() for rank in range(3)]
    assert sorted(i for rank in seen for batch in rank for i in batch) == list(range(11))
    ranks = [_Batches(Split(11), 2, (rank, 2), seed=4)._order() for rank in range(2)]
    one = _Batches(Split(11), 4, (0, 1), seed=4)._order()
    assert [a + b for a, b in zip(*ranks, strict=True)] == one and len(one) == 2
    assert _Batches(Split(11), 4, (0, 1), seed=4, epoch=lambda: 1)._order() != one
    assert [len(b) for b in _Batches(Split(3), 8, (0, 1), seed=4)._order()] == [3]


def test_a_probe_on_kept_features_equals_one_on_fresh_ones(tmp_path):
    """One-hot features are exact in half precision, so the same order of images gives the same head."""
    train, val = world(8, 1), world(4, 2)
    shape = (CLASSES, 8, 8)
    digests = {}
    backbone = FrozenBackbone(own("OneHot"))
    for split, batches in (("train", train), ("val", val)):
        digests[split] = cache_digest(backbone.digest(), split, SIDE, GRID)
        keep = writer(tmp_path, batches, digest=digests[split], shape=shape, split=split)
        fill(keep, backbone, batches, SIDE, GRID)
    data = CachedFeatures(tmp_path, ("train", digests["train"]), ("val", digests["val"]), batch_size=4, seed=6)
    sizes = {"num_classes": CLASSES, "input_size": SIDE, "grid": GRID}
    torch.manual_seed(0)
    cached = LinearProbe(backbone=own("OneHot"), protocol="L-cached", **sizes)
    fresh = LinearProbe(backbone=own("OneHot"), **sizes)
    fresh.head.load_state_dict(cached.head.state_dict())
    order = _Batches(CachedSplit(tmp_path, "train", digests["train"]), 4, (0, 1), seed=6)._order()
    joined = [
        {
            "id": [train[i]["id"][0] for i in rows],
            "image": torch.cat([train[i]["image"] for i in rows]),
            "mask": torch.cat([train[i]["mask"] for i in rows]),
        }
        for rows in order
    ]
    trainer(1).fit(cached, datamodule=data)
    trainer(1).fit(fresh, loader(joined), loader(val))
    for name, tensor in cached.head.state_dict().items():
        assert torch.allclose(tensor, fresh.head.state_dict()[name], atol=1e-7), name
    assert (cached.confusion_counts()["probe"] == fresh.confusion_counts()["probe"]).all()
