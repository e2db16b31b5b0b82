"""`frugalseg.load` and `frugalseg.create_model`."""

import os
import pickle
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

import frugalseg
from frugalseg.data.normalise import IMAGENET_MEAN, IMAGENET_STD
from frugalseg.errors import CheckpointError, ConfigError, ImageError
from tests.checkpoints import pretraining, write_checkpoint


@pytest.fixture(scope="module")
def task():
    return pretraining(changes={"drop_path": 0.3})


@pytest.fixture(scope="module")
def checkpoint(task, tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("run"), task)


@pytest.fixture(scope="module")
def predictor(checkpoint):
    return frugalseg.load(checkpoint)


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def padded_input(image, multiple, mean=IMAGENET_MEAN, std=IMAGENET_STD):
    """The oracle: normalise in float64, then zeros to the right and below."""
    values = (image / 255 - np.array(mean)) / np.array(std)
    sides = [-(-side // multiple) * multiple for side in image.shape[:2]]
    canvas = np.zeros((*sides, 3))
    canvas[: image.shape[0], : image.shape[1]] = values
    return torch.from_numpy(canvas.transpose(2, 0, 1)[None].astype(np.float32))


def answers(task, image, multiple=32):
    net = task.teacher.module.backbone.eval()
    with torch.no_grad():
        return net(padded_input(image, multiple))


def test_on_a_multiple_of_32_features_are_the_teachers_own(predictor, task):
    image = picture(64, 96)
    own = answers(task, image)
    assert (predictor.width, predictor.stride, predictor.token_width, predictor.multiple) == (64, 4, 128, 32)
    torch.testing.assert_close(predictor.features(image), own.features[0], rtol=0, atol=2e-5)
    torch.testing.assert_close(predictor.token(image), own.token[0], rtol=0, atol=2e-5)
    student = task.student.backbone.eval()
    with torch.no_grad():
        assert (student(padded_input(image, 32)).features[0] - own.features[0]).abs().max() > 0.01
    assert predictor.features(image).dtype == torch.float32 and not predictor.features(image).requires_grad


@pytest.mark.parametrize("size", [(50, 70), (1, 1), (1, 70), (33, 1), (31, 32), (4, 5)])
def test_the_padding_is_cut_off_by_whole_cells(predictor, task, size):
    image = picture(*size)
    rows, columns = (len(range(0, side, 4)) for side in size)
    expected = answers(task, image).features[0, :, :rows, :columns]
    found = predictor.features(image)
    assert found.shape == (64, rows, columns)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_files_pillow_images_and_arrays_are_one(predictor, tmp_path):
    image = picture(40, 36)
    file = tmp_path / "image.png"
    Image.fromarray(image).save(file)
    wanted = predictor.features(image)
    for same in (file, str(file), Image.fromarray(image), np.asfortranarray(image), image[:, ::-1][:, ::-1]):
        assert torch.equal(predictor.features(same), wanted)
    grey = Image.fromarray(image[:, :, 0])
    assert torch.equal(predictor.token(grey), predictor.token(np.repeat(image[:, :, :1], 3, axis=2)))


def test_a_list_gives_what_its_images_give_alone(predictor, tmp_path):
    images = [picture(40, 36), picture(8, 65, seed=1), Image.fromarray(picture(40, 36))]
    for many in (images, tuple(images)):
        for name in ("features", "token"):
            answer = getattr(predictor, name)
            assert all(torch.equal(a, answer(b)) for a, b in zip(answer(many), images, strict=True))
    assert predictor.features([]) == []


def test_means_come_from_the_run_where_the_checkpoint_lies_in_one(task, tmp_path):
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 0.125]
    found = frugalseg.load(write_checkpoint(tmp_path, task, {"mean": mean, "std": std}))
    image = picture(32, 32)
    with torch.no_grad():
        expected = task.teacher.module.backbone.eval()(padded_input(image, 32, mean, std))
    torch.testing.assert_close(found.features(image), expected.features[0], rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("changes", "width", "stride"),
    [({"output_stride": 8}, 64, 8), ({"decoder": False}, 96, 16), ({"context": False, "mask_token": True}, 64, 4)],
)
def test_ablated_nets_open_with_their_own_grid(tmp_path, changes, width, stride):
    found = frugalseg.load(write_checkpoint(tmp_path, pretraining(changes=changes)))
    assert (found.width, found.stride) == (width, stride)
    assert found.features(picture(50, 70)).shape == (width, -(-50 // stride), -(-70 // stride))


BASELINES = [
    ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 48, "num_heads": 3}, 48, 16),
    ("resnet10t", {}, 512, 32),
]


@pytest.mark.parametrize(("name", "options", "width", "stride"), BASELINES)
def test_baselines_of_timm_give_their_last_map_and_token(tmp_path, name, options, width, stride):
    task = pretraining(name, options)
    found = frugalseg.load(write_checkpoint(tmp_path, task))
    image = picture(50, 70)
    net = task.teacher.module.backbone.net.eval()
    view = padded_input(image, found.multiple)
    with torch.no_grad():
        last = net.forward_intermediates(view, indices=[-1], norm=True, intermediates_only=True)[0][0]
        token = net.forward_head(net.forward_features(view), pre_logits=True)[0]
    assert (found.width, found.stride, found.token_width) == (width, stride, width)
    rows, columns = (len(range(0, side, stride)) for side in image.shape[:2])
    torch.testing.assert_close(found.features(image), last[:, :rows, :columns], rtol=0, atol=1e-4)
    torch.testing.assert_close(found.token(image), token, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------- create_model


def test_create_model_takes_a_checkpoint_and_a_new_classifier(checkpoint, task):
    net = frugalseg.create_model("mevt_tiny", checkpoint, num_classes=3).eval()
    image = torch.randn(2, 3, 64, 32)
    own = task.teacher.module.backbone.eval()
    with torch.no_grad():
        assert torch.equal(net.dense(image), own(image).features)
        assert torch.equal(net.forward_head(net.forward_features(image), pre_logits=True), own(image).token)
        assert net(image).shape == (2, 3)


def test_create_model_takes_the_settings_of_the_checkpoint(tmp_path):
    path = write_checkpoint(tmp_path, pretraining(changes={"output_stride": 16}))
    assert frugalseg.create_model("mevt_tiny", path).stride == 16
    assert frugalseg.create_model("mevt_tiny").stride == 4


# ---------------------------------------------------------------------- errors


class Malicious:
    """Runs code where it is unpickled."""

    def __reduce__(self):
        return os.mkdir, (os.environ["PWNED"],)


def of_another_task(path):
    known = {"_class_path": "frugalseg.stages.irn.IRN"}
    torch.save({"state_dict": {}, "hyper_parameters": known}, path)


BROKEN = {
    "damaged": (lambda path: path.write_bytes(b"nothing"), "not a readable checkpoint"),
    "text": (lambda path: path.write_text("{}"), "not a readable checkpoint"),
    "plain weights": (lambda path: torch.save({"a": torch.zeros(1)}, path), "which task"),
    "a list": (lambda path: torch.save([1], path), "which task"),
    "another task": (of_another_task, "holds frugalseg.stages.irn.IRN"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Malicious())), "not a readable checkpoint"),
    "torch with a pickle": (lambda path: torch.save({"hyper_parameters": Malicious()}, path), "not a readable"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_checkpoint_is_told_in_one_line(tmp_path, monkeypatch, kind):
    write, reason = BROKEN[kind]
    monkeypatch.setenv("PWNED", str(tmp_path / "pwned"))
    path = tmp_path / "last.ckpt"
    write(path)
    with pytest.raises(CheckpointError, match=reason) as caught:
        frugalseg.load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_what_is_missing_or_of_another_net_is_told_in_one_line(tmp_path, checkpoint):
    tiny = torch.load(checkpoint, weights_only=True)
    changed = {name: t for name, t in tiny["state_dict"].items() if not name.endswith("embed.weight")}
    torch.save({**tiny, "state_dict": changed}, tmp_path / "less.ckpt")
    torch.save({**tiny, "state_dict": {"centre": torch.zeros(1)}}, tmp_path / "none.ckpt")
    known = {**tiny["hyper_parameters"], "preset": "mevt_xs"}
    torch.save({**tiny, "hyper_parameters": known}, tmp_path / "other.ckpt")
    for call, reason in {
        partial(frugalseg.load, tmp_path / "absent.ckpt"): "no such checkpoint",
        partial(frugalseg.load, tmp_path): "config.json",
        partial(frugalseg.load, tmp_path / "less.ckpt"): "4 tensors are not those of mevt_tiny: encoder.stages.0.embed",
        partial(frugalseg.load, tmp_path / "none.ckpt"): "holds no tensors teacher",
        partial(frugalseg.load, tmp_path / "other.ckpt"): "tensors are not those of mevt_xs",
        partial(frugalseg.create_model, "mevt_xs", checkpoint): "holds mevt_tiny, not mevt_xs",
        partial(frugalseg.create_model, "mevt_tiny", checkpoint, dim=32): "tensors are not those of mevt_tiny",
    }.items():
        with pytest.raises(CheckpointError, match=reason) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_settings_that_cannot_be_are_told_in_one_line(checkpoint):
    for call, reason in {
        partial(frugalseg.load, checkpoint, device="nowhere"): "device 'nowhere'",
        partial(frugalseg.create_model, "resnet50"): "none of mevt_s",
        partial(frugalseg.create_model, "mevt_tiny", wings=2): "wings",
        partial(frugalseg.create_model, "mevt_tiny", in_chans=4): "3 channels",
        partial(frugalseg.create_model, "mevt_tiny", output_stride=5): "output_stride",
    }.items():
        with pytest.raises(ConfigError, match=reason) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3)), "4x4x3 float64"),
        (np.zeros((4, 4), np.uint8), "4x4 uint8"),
        (np.zeros((2, 4, 4, 3), np.uint8), "2x4x4x3"),
        (np.zeros((0, 4, 3), np.uint8), "0x4x3"),
        (torch.zeros(4, 4, 3, dtype=torch.uint8), "of type Tensor"),
        (None, "of type NoneType"),
        ([np.zeros((4, 4, 3), np.uint8), 5], "image 2 of 2 is of type int"),
        ("absent.jpg", "absent.jpg: no such image"),
        ("/", "cannot be decoded"),
    ],
)
def test_what_is_no_image_is_told_in_one_line(predictor, image, reason):
    for answer in (predictor.features, predictor.token):
        with pytest.raises(ImageError, match=reason) as caught:
            answer(image)
        assert "\n" not in str(caught.value)


def test_a_net_without_masks_says_what_it_gives(predictor, checkpoint):
    with pytest.raises(CheckpointError, match=r"gives no masks, but .*features\(image\), token\(image\)") as caught:
        predictor(picture(8, 8))
    assert str(checkpoint) in str(caught.value)


def test_importing_the_package_waits_for_no_torch():
    code = "import sys, frugalseg; print([n for n in ('torch', 'timm', 'numpy', 'lightning') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
