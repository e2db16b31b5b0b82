"""Episodes of images of different sizes, and masks that lose their object."""

import numpy as np
import pytest
import torch
from PIL import Image

from frugalseg.data import Episodes, ISAID5i
from frugalseg.data.base import Episode, Sample
from frugalseg.data.dlrsd import CODE
from frugalseg.data.io import write_mask
from frugalseg.errors import DatasetError
from frugalseg.ops.palette import voc_palette
from tests.data.conftest import picture
from tests.data.episode_tiles import NAMES, SIDE, write_tiles


def sample(folder, name, size, box=(10, 60, 20, 90), class_id=2):
    """An image of noise; rows and columns of the object are y0:y1, x0:x1."""
    Image.fromarray(picture(*size, len(name))).save(folder / f"{name}.png")
    ids = np.zeros(size, np.uint8)
    ids[box[0] : box[1], box[2] : box[3]], ids[:3] = class_id, 255
    write_mask(folder / f"{name}_mask.png", ids, voc_palette())
    return Sample(name, folder / f"{name}.png", folder / f"{name}_mask.png", None)


def episode(query, *supports, class_id=2):
    return Episode(query.id, query.image, query.mask, None, query.code, class_id=class_id, supports=supports, number=0)


@pytest.fixture
def mixed(tmp_path):
    """Query 200 x 256, supports 256 x 256 and 300 x 180."""
    sizes = {"q": (200, 256), "a": (256, 256), "bb": (300, 180)}
    return episode(*(sample(tmp_path, name, size) for name, size in sizes.items()))


def test_evaluation_fits_each_image_by_itself(mixed):
    item = Episodes(shots=2, size=256).evaluation_item(mixed, 21)
    assert item["query_image"].shape == (3, 256, 256)
    assert item["support_images"].shape == (2, 3, 256, 256)
    truth = np.zeros((256, 256), np.int64)
    truth[10:60, 20:90], truth[:3], truth[200:] = 1, 255, 255
    assert np.array_equal(item["query_mask"].numpy(), truth)  # 200 x 256 is padded, not stretched
    assert (item["query_image"][:, 200:] == 0).all()
    truth[200:] = 0
    assert np.array_equal(item["support_masks"][0].numpy(), truth)
    # 300 x 180 becomes 256 x 154: the object's 50 x 70 pixels become about 43 x 60
    tall = item["support_masks"][1].numpy()
    assert (tall[:, 154:] == 255).all()
    assert (tall[3:, :154] != 255).all()
    rows, columns = np.nonzero(tall == 1)
    assert np.ptp(rows) + 1 == pytest.approx(50 * 256 / 300, abs=1)
    assert np.ptp(columns) + 1 == pytest.approx(70 * 256 / 300, abs=1)


def test_training_crops_each_image_by_itself(mixed):
    recipe = Episodes(shots=2, size=256)
    for seed in range(8):
        item = recipe.train_item(mixed, 21, np.random.default_rng(seed))
        assert item["query_image"].shape == (3, 256, 256)
        assert item["support_images"].shape == (2, 3, 256, 256)
        for mask in (item["query_mask"], *item["support_masks"]):
            assert mask.shape == (256, 256)
            assert (mask == 1).any()
            assert set(mask.unique().tolist()) <= {0, 1, 255}
        assert torch.isfinite(item["query_image"]).all()
    still = Episodes(shots=2, size=256, scale=None, rotate=0, flip=0, vertical_flip=0)
    item = still.train_item(mixed, 21, np.random.default_rng(0))
    assert ((item["query_mask"] != 255).sum() + 3 * 256) == 200 * 256  # no pixel lost, none made up
    assert (item["query_mask"] == 1).sum() == (item["support_masks"] == 1).flatten(1).sum(1)[0] == 50 * 70


def test_an_object_that_only_the_resizing_loses_is_no_error(tmp_path):
    """One pixel of 512 x 512 lies between the centres of the 128 x 128 ones."""
    tiny = sample(tmp_path, "tiny", (512, 512), box=(301, 302, 205, 206))
    item = Episodes(size=128).evaluation_item(episode(sample(tmp_path, "query", (512, 512)), tiny), 21)
    assert not (item["support_masks"] == 1).any()
    assert (item["query_mask"] == 1).any()


def test_an_object_that_only_the_stretching_of_the_mask_loses_is_no_error(tmp_path):
    """DLRSD's labels may be 256 x 256 where the image is smaller: a row of the mask falls away."""
    stored = np.ones((256, 256), np.uint8)
    kept = (np.arange(243) + 0.5) * 256 / 243
    lost = min(set(range(256)) - set(kept.astype(int)))
    stored[lost, 7] = 5
    Image.fromarray(stored).save(tmp_path / "m.png")
    Image.fromarray(picture(243, 256, 1)).save(tmp_path / "i.png")
    odd = Sample("odd", tmp_path / "i.png", tmp_path / "m.png", None, CODE)
    item = Episodes(size=256).evaluation_item(episode(odd, odd, class_id=4), 17)
    assert not (item["query_mask"] == 1).any()


@pytest.mark.parametrize(("place", "workers"), [("query", 0), ("support", 0), ("support", 1)])
def test_a_mask_without_the_class_is_a_wrong_list(tmp_path, place, workers):
    root = write_tiles(tmp_path)
    wrong, right = NAMES[4], NAMES[0]  # the tiles show classes 5 and 1, 1 and 2
    path = root / f"val/semantic_png/{wrong}_instance_color_RGB.png"
    ids = np.asarray(Image.open(path)).copy()
    ids[ids == 1] = 255
    Image.fromarray(ids).save(path)
    (root / "val/val_list/split0_val.txt").write_text(
        "".join(
            f"{name}_instance_color_RGB.png_01\n" for name in ([wrong, right] if place == "query" else [right, wrong])
        )
    )
    data = ISAID5i(root, Episodes(size=SIDE, allow_missing_classes=True), num_workers=workers)
    with pytest.raises(DatasetError) as caught:
        list(data.test_dataloader())
    assert str(caught.value) == (
        f"{path}: shows no pixel of class 1, for which {wrong} is listed in {root}/val/val_list/split0_val.txt;"
        " take it off that list, or restore the mask"
    )


def test_a_file_that_names_a_wrong_image_is_named(tmp_path):
    root, file = write_tiles(tmp_path), tmp_path / "e.csv"
    file.write_text(f"number,class_id,query,support_1\n0,3,{NAMES[2]},{NAMES[0]}\n")
    recipe = Episodes(size=SIDE, episodes_file=file, allow_missing_classes=True)
    with pytest.raises(DatasetError, match=rf"no pixel of class 3, for which {NAMES[0]} is listed in {file}; take"):
        list(ISAID5i(root, recipe, num_workers=0).test_dataloader())
