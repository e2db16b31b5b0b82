"""`frugalseg cache`: the order in which it takes places on the disk and works."""

from types import SimpleNamespace

from frugalseg.commands import cache


def test_both_splits_have_their_place_before_the_first_image(tmp_path, monkeypatch):
    """Or hours of the training split are worked out before the validation split finds the disk full."""
    events = []

    def writer(out, split, *_):
        return SimpleNamespace(missing=list, final=out, finish=list, split=events.append(f"place {split}"))

    monkeypatch.setattr(cache, "CacheWriter", writer)
    monkeypatch.setattr(cache, "work_out", lambda *_: events.append("fill"))
    monkeypatch.setattr(cache, "_loader", lambda *_: [])
    samples = {"train": [SimpleNamespace(id="a")], "val": [SimpleNamespace(id="b")]}
    data = SimpleNamespace(samples=samples.get, splits={"train": "train", "val": "val"})
    plan = SimpleNamespace(
        data=data, sizes=(64, 16), shape=(2, 4, 4), digests={"train": "t" * 16, "val": "v" * 16},
        model=SimpleNamespace(backbone=None), device="cpu",
    )  # fmt: skip
    monkeypatch.setattr(cache, "make_plan", lambda *_: plan)
    monkeypatch.setattr(cache, "_index", lambda *_: SimpleNamespace(content=dict))
    cache.run(["--out", str(tmp_path)])
    assert events.index("fill") > events.index("place val")
