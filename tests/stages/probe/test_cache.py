"""Kept features: equal to fresh ones, resumed image by image, whole or not there, refused above the limit."""

import contextlib
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from frugalseg.data.sampler import TrainSampler
from frugalseg.errors import ConfigError, DatasetError, DiskFullError
from frugalseg.nn.features import FrozenBackbone
from frugalseg.stages.probe import (
    CachedFeatures,
    CachedSplit,
    CacheIndex,
    CacheWriter,
    LinearProbe,
    cache_digest,
    fill,
    read_index,
)
from frugalseg.stages.probe.cache import cache_bytes
from frugalseg.stages.probe.order import RowOrder
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


def test_a_split_that_was_stopped_while_it_got_its_name_goes_on(tmp_path, backbone, monkeypatch):
    batches, replace = world(3, 1, "noise"), Path.replace

    def stopped(self, target):
        if self.suffix == ".part":
            raise KeyboardInterrupt
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stopped)
        with pytest.raises(KeyboardInterrupt):
            fill(writer(tmp_path, batches), backbone, batches, SIDE, GRID)
    assert fill(writer(tmp_path, batches), Counting(backbone, stop=0), batches, SIDE, GRID) == 0
    assert [p.suffix for p in tmp_path.iterdir()] == [""] and not list(tmp_path.rglob("done.npy"))


def test_the_limit_names_the_size_and_the_setting(tmp_path):
    batches = world(3, 1, "noise")
    need = cache_bytes(3, SHAPE, GRID)
    assert need == 3 * (6 * 8 * 8 * 2 + 16 * 16)
    with pytest.raises(ConfigError, match=rf"3 images of split train take {need} bytes.*limit of {need - 1};"):
        writer(tmp_path, batches, limit=need - 1)
    assert not list(tmp_path.iterdir())
    done = writer(tmp_path, batches, limit=need)
    arrays = [np.load(done.part / f"{name}.npy", mmap_mode="r").nbytes for name in ("features", "masks")]
    assert sum(arrays) == need


def test_a_full_disk_is_found_before_the_first_image_and_nothing_stays(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("frugalseg.stages.probe.cache.os.posix_fallocate", full)
    with pytest.raises(DiskFullError, match=r"features\.npy: no room for the features; .*--out on another disk"):
        writer(tmp_path, world(3, 1, "noise"))
    assert not list(tmp_path.iterdir())


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
    seen = [list(RowOrder(11, 2, rank=rank, world=3)) for rank in range(3)]
    assert sorted(i for rank in seen for batch in rank for i in batch) == list(range(11))
    assert [len(RowOrder(11, 2, rank=rank, world=3)) for rank in range(3)] == [len(rank) for rank in seen]
    ranks = [list(RowOrder(11, 2, 4, rank, 2)) for rank in range(2)]
    one = list(RowOrder(11, 4, 4))
    assert [a + b for a, b in zip(*ranks, strict=True)] == one and len(one) == len(RowOrder(11, 4, 4)) == 2
    assert list(RowOrder(11, 4, 4, epoch=1)) != one
    assert [len(b) for b in RowOrder(3, 8, 4)] == [3]


@pytest.mark.parametrize(("count", "size", "world", "epoch"), [(23, 4, 1, 0), (23, 4, 1, 3), (40, 3, 4, 1)])
def test_the_order_is_that_of_images(count, size, world, epoch):
    for rank in range(world):
        images = TrainSampler(count, size, 9, rank, world, epoch=epoch)
        assert list(RowOrder(count, size, 9, rank, world, epoch)) == [[i for i, _ in draws] for draws in images]


def test_a_resumed_order_leaves_out_what_was_done_and_only_once():
    whole = list(RowOrder(20, 4, 1, epoch=2))
    order = RowOrder(20, 4, 1, epoch=2, start=3)
    assert list(order) == whole[3:] and list(order) == whole


def kept(root, train, val, backbone=None):
    """Fill a cache of toy batches; the path of its index."""
    net = backbone or FrozenBackbone(own("OneHot"))
    digests = {}
    for split, batches in (("train", train), ("val", val)):
        digests[split] = cache_digest(net.digest(), split, SIDE, GRID)
        fill(
            writer(root, batches, digest=digests[split], shape=(net.width, 8, 8), split=split), net, batches, SIDE, GRID
        )
    names = tuple(map(str, range(CLASSES)))
    sizes = {"train": len(train), "val": len(val)}
    index = CacheIndex(
        ("train", digests["train"]), ("val", digests["val"]), "Toy", names, net.digest(), net.width, SIDE, GRID, sizes
    )
    path = root / "cache.json"
    path.write_text(json.dumps(index.content()))
    return path


def probe(name="OneHot", **settings):
    return LinearProbe(
        backbone=own(name),
        **{"protocol": "L-cached", "num_classes": CLASSES, "input_size": SIDE, "grid": GRID, **settings},
    )


def test_a_probe_on_kept_features_equals_one_on_fresh_ones(tmp_path):
    """One-hot features are exact in half precision, so the same order of images gives the same head."""
    train, val = world(8, 1), world(4, 2)
    data = CachedFeatures(kept(tmp_path, train, val), batch_size=4, seed=6)
    assert data.num_classes == CLASSES and data.split_sizes == {"train": 8, "val": 4}
    torch.manual_seed(0)
    cached, fresh = probe(), probe(protocol="L")
    fresh.head.load_state_dict(cached.head.state_dict())
    joined = [
        {
            "id": [train[i]["id"][0] for i in rows],
            "image": torch.cat([train[i]["image"] for i in rows]),
            "mask": torch.cat([train[i]["mask"] for i in rows]),
        }
        for rows in RowOrder(8, 4, 6)
    ]
    trainer(1).fit(cached, datamodule=data)
    trainer(1).fit(fresh, loader(joined), loader(val))
    for name, tensor in cached.head.state_dict().items():
        assert torch.allclose(tensor, fresh.head.state_dict()[name], atol=1e-7), name
    assert (cached.confusion_counts()["probe"] == fresh.confusion_counts()["probe"]).all()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_fit_that_stopped_inside_an_epoch_sees_the_same_batches(tmp_path, workers):
    """20 images in batches of 4 are 5 steps an epoch: stopped after step 7 of 15, inside the second epoch."""
    path = kept(tmp_path, world(20, 1), world(4, 2))
    seen = []

    class Watched(LinearProbe):
        stop = None

        def training_step(self, batch, batch_idx):
            if self.global_step == self.stop:
                raise KeyboardInterrupt
            seen.append(tuple(batch["id"]))
            return super().training_step(batch, batch_idx)

    def fit(folder, stop=None, checkpoint=None):
        torch.manual_seed(0)
        sizes = {"num_classes": CLASSES, "input_size": SIDE, "grid": GRID}
        model = Watched(backbone=own("OneHot"), protocol="L-cached", **sizes)
        model.stop = stop
        save = ModelCheckpoint(folder, every_n_train_steps=1, save_top_k=-1)
        run = trainer(3, enable_checkpointing=True, callbacks=[save])
        data = CachedFeatures(path, batch_size=4, seed=2, num_workers=workers)
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            run.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        return model

    whole = fit(tmp_path / "whole")
    straight, _ = list(seen), seen.clear()
    fit(tmp_path / "part", stop=7)
    (last,) = (tmp_path / "part").glob("*step=7*")
    resumed = fit(tmp_path / "again", checkpoint=last)
    assert seen == straight and len(set(straight)) == 15
    for name, tensor in whole.head.state_dict().items():
        assert torch.equal(tensor, resumed.head.state_dict()[name]), name


def test_features_of_another_net_or_size_are_refused(tmp_path):
    torch.manual_seed(4)
    net = FrozenBackbone(own("Pooled"))
    data = CachedFeatures(kept(tmp_path, world(4, 1, "noise"), world(2, 2, "noise"), net), batch_size=2)
    torch.manual_seed(4)
    trainer(1).fit(probe("Pooled"), datamodule=data)
    for model, words in (
        (probe("Pooled"), "settings or weights"),
        (probe("OneHot"), f"width 6, not {CLASSES}"),
        (probe("Pooled", input_size=64), f"input_size {SIDE}, not 64"),
    ):
        with pytest.raises(ConfigError, match=f"cache.json: the kept features are not those .*{words}"):
            trainer(1).fit(model, datamodule=data)
        with pytest.raises(ConfigError, match=words):
            trainer(1).validate(model, datamodule=data, verbose=False)


def test_more_processes_than_images_are_refused(tmp_path):
    """Lightning would take an epoch without batches for a finished fit, and let ranks without images hold up the others."""
    data = CachedFeatures(kept(tmp_path, world(3, 1), world(2, 2)), batch_size=1)
    for rank in (0, 2):
        data.trainer = SimpleNamespace(global_rank=rank, world_size=3, current_epoch=0)
        assert len(data.train_dataloader()) == 1
        with pytest.raises(DatasetError, match=r"2 images of the val split for 3 processes: lower trainer\.devices"):
            data.val_dataloader()
    data.trainer = SimpleNamespace(global_rank=3, world_size=4, current_epoch=0)
    with pytest.raises(DatasetError, match="3 images of the train split for 4 processes"):
        data.train_dataloader()


def test_a_process_that_does_not_begin_leaves_the_files_of_the_one_that_does(tmp_path):
    """It may see them late; to begin again would cost what is there."""
    given = (tmp_path, "train", ["a", "b"], (2, 1, 1), 1, "digest", 1 << 20)
    with pytest.raises(DatasetError, match=r"\.part: rank 0 has begun it, but it is not to be seen here"):
        CacheWriter(*given, begins=False)
    assert not list(tmp_path.rglob("*.npy"))
    CacheWriter(*given).put("a", torch.ones(2, 1, 1), torch.zeros(1, 1))
    late = CacheWriter(*given, begins=False)
    late.put("b", torch.ones(2, 1, 1), torch.zeros(1, 1))
    late.flush()


@pytest.mark.parametrize("text", [None, "{", "[]", '{"train": ["a", "b"]}', '{"class_names": 3}'])
def test_a_missing_or_damaged_index_is_one_line(tmp_path, text):
    path = tmp_path / "cache.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DatasetError, match=r"cache\.json: no index of kept features .*run `frugalseg cache` again"):
        read_index(path)
