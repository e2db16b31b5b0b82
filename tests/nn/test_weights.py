"""Initial weights from files of several kinds, and one-line errors for all others."""

import pickle
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import safetensors.torch
import timm
import torch
import torchvision

from frugalseg.errors import WeightsError
from frugalseg.nn.backbone import ResNetStages
from frugalseg.nn.weights import load_backbone_weights

SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 12, 16, 20]}


def backbone(seed=0):
    torch.manual_seed(seed)
    return ResNetStages("resnet18", options=SMALL)


@pytest.fixture
def source():
    """A state dict with timm's names, classifier included, and statistics that no fresh net has."""
    torch.manual_seed(7)
    net = timm.create_model("resnet18", pretrained=False, num_classes=5, **SMALL)
    for name, buffer in net.named_buffers():
        if not name.endswith("num_batches_tracked"):
            buffer.uniform_(0.5, 1.5)
    return net.state_dict()


def number_of(module):
    return sum(not name.endswith("num_batches_tracked") for name in module.state_dict())


def check_loaded(module, source, count):
    wanted = {name for name in module.state_dict() if not name.endswith("num_batches_tracked")}
    assert count == len(wanted)
    for name in wanted:
        assert torch.equal(module.state_dict()[name], source[name]), name


def refused(module, weights):
    """The message of the error, which must leave the module as it was and fit on one line."""
    before = {name: t.clone() for name, t in module.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_backbone_weights(module, str(weights))
    message = str(caught.value)
    assert "\n" not in message
    assert str(weights) in message
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    return message


def test_none_leaves_random_weights():
    module, twin = backbone(), backbone()
    assert load_backbone_weights(module, None) == 0
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, twin.state_dict()[name])


def test_a_torchvision_file(tmp_path):
    torch.manual_seed(3)
    source = torchvision.models.resnet18(weights=None).state_dict()
    assert "fc.weight" in source
    torch.save(source, tmp_path / "resnet18-f37072fd.pth")
    module = ResNetStages("resnet18")
    check_loaded(module, source, load_backbone_weights(module, str(tmp_path / "resnet18-f37072fd.pth")))


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt"])
def test_a_timm_file(tmp_path, source, suffix):
    torch.save(source, tmp_path / f"weights{suffix}")
    module = backbone()
    check_loaded(module, source, load_backbone_weights(module, str(tmp_path / f"weights{suffix}")))


def test_what_is_left_out_is_said(tmp_path, source, caplog):
    classifier = [name for name in source if name.startswith("fc.")]
    torch.save({**source, "fc8.weight": torch.ones(2)}, tmp_path / "weights.pth")
    with caplog.at_level("INFO", logger="frugalseg"):
        load_backbone_weights(backbone(), str(tmp_path / "weights.pth"))
    assert f"{len(classifier) + 1} tensors are of no use here, first {classifier[0]}" in caplog.text


@pytest.mark.parametrize("prefix", ["module.", "model.backbone.", "module.model.net.", "encoder.", "net.backbone."])
@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_wrapped_state_dicts(tmp_path, source, prefix, key):
    path = tmp_path / "wrapped.pth"
    torch.save({key: {prefix + name: t for name, t in source.items()}, "epoch": 3, "arch": "resnet18"}, path)
    module = backbone()
    check_loaded(module, source, load_backbone_weights(module, str(path)))


def test_safetensors(tmp_path, source):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({f"backbone.{name}": t for name, t in source.items()}, path)
    module = backbone()
    check_loaded(module, source, load_backbone_weights(module, str(path)))


class Wrapper(lightning.LightningModule):
    """What a stage's task looks like to this test: `net.backbone` and a head."""

    def __init__(self, strides=(4, 1, 2, 2, 1), folder="runs"):
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.ModuleDict({"backbone": backbone(5), "head": torch.nn.Linear(20, 4)})

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters())


def test_a_lightning_checkpoint(tmp_path):
    task = Wrapper()
    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    module = backbone()
    count = load_backbone_weights(module, str(tmp_path / "last.ckpt"))
    check_loaded(module, task.net["backbone"].state_dict(), count)


def test_a_file_of_another_architecture_says_how_many_matched(tmp_path, source):
    path = tmp_path / "other.pth"
    kept = {name: t for name, t in source.items() if not name.startswith("layer4.")}
    torch.save(kept, path)
    module = backbone()
    wanted = [n for n in module.state_dict() if not n.endswith("num_batches_tracked")]
    matched = sum(name in kept for name in wanted)
    message = refused(module, path)
    assert f"only {matched} of {len(wanted)} " in message
    assert "layer4." in message
    assert "is not there" in message


def test_names_that_do_not_match_at_all(tmp_path, source):
    path = tmp_path / "foreign.pth"
    torch.save({f"blocks.{name}": t for name, t in source.items()}, path)
    module = backbone()
    assert f"only 0 of {number_of(module)} " in refused(module, path)


def test_a_wrong_shape_names_both_shapes(tmp_path, source):
    path = tmp_path / "shape.pth"
    wide = torch.zeros(source["conv1.weight"].shape[0] + 1, 3, 7, 7)
    torch.save({**source, "conv1.weight": wide}, path)
    module = backbone()
    message = refused(module, path)
    assert f"only {number_of(module) - 1} of {number_of(module)} " in message
    assert f"conv1.weight has shape {tuple(wide.shape)}, not {tuple(source['conv1.weight'].shape)}" in message


@pytest.mark.parametrize("name", ["nowhere.pth", "nowhere.safetensors", "folder/nowhere"])
def test_a_missing_file(tmp_path, name):
    assert "no such weights file" in refused(backbone(), tmp_path / name)


@pytest.mark.parametrize("name", ["damaged.pth", "damaged.safetensors"])
@pytest.mark.parametrize("cut", [0, 100, -200])
def test_a_truncated_file(tmp_path, source, name, cut):
    path = tmp_path / name
    safetensors.torch.save_file(source, path) if path.suffix == ".safetensors" else torch.save(source, path)
    path.write_bytes(path.read_bytes()[:cut])
    assert "not a readable weights file" in refused(backbone(), path)


@pytest.mark.parametrize("content", [{}, [torch.zeros(2)], {"state_dict": {}}, {"epoch": 1}, torch.zeros(2)])
def test_a_file_without_named_tensors(tmp_path, content):
    torch.save(content, tmp_path / "empty.pth")
    assert "no tensors by name" in refused(backbone(), tmp_path / "empty.pth")


def test_a_file_with_numbered_tensors(tmp_path):
    torch.save({0: torch.zeros(2)}, tmp_path / "numbered.pth")
    assert "no tensors by name" in refused(backbone(), tmp_path / "numbered.pth")


def test_numbered_tensors_beside_named_ones_are_ignored(tmp_path, source):
    torch.save({**source, 0: torch.zeros(2), ("a", 1): torch.zeros(2)}, tmp_path / "mixed.pth")
    module = backbone()
    check_loaded(module, source, load_backbone_weights(module, str(tmp_path / "mixed.pth")))


class Runs:
    """Unpickling this writes a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.mark.parametrize(
    "writer", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2))]
)
def test_a_file_that_would_run_code_is_refused_and_does_not_run_it(tmp_path, source, writer):
    mark, path = tmp_path / "executed", tmp_path / "evil.pth"
    writer({**source, "x": Runs(mark)}, path)
    assert "not a readable weights file" in refused(backbone(), path)
    assert not mark.exists()


def test_the_malicious_file_is_one(tmp_path):
    """Without the guard the file of the test above does run its code."""
    torch.save({"x": Runs(tmp_path / "executed")}, tmp_path / "evil.pth")
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "error", [OSError("no route to host\nsecond line"), RuntimeError("unknown model"), TimeoutError()]
)
def test_a_timm_name_without_network(monkeypatch, error):
    module = backbone()

    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(timm, "create_model", fail)
    message = refused(module, "resnet50.tv_in1k")
    assert "timm" in message
    assert (str(error).splitlines() or [type(error).__name__])[0] in message


@pytest.fixture
def asked(monkeypatch, source):
    """timm without a network: hands out `source` and notes what it was asked for."""
    calls = []
    create = timm.create_model
    net = create("resnet18", pretrained=False, num_classes=0, **SMALL)
    net.load_state_dict(source, strict=False)

    def give(name, pretrained, **settings):
        if not pretrained:  # the backbones of these tests
            return create(name, pretrained=False, **settings)
        calls.append(name)
        return net

    monkeypatch.setattr(timm, "create_model", give)
    return calls


@pytest.mark.parametrize(
    "name", ["resnet18.tv_in1k", "hf-hub:timm/resnet18", "hf-hub:timm/resnet18.tv_in1k", "hf_hub:org.x/name@main"]
)
def test_a_timm_name(asked, source, name):
    """What timm hands out is loaded; the name and the wish for trained weights reach it."""
    module = backbone()
    check_loaded(module, source, load_backbone_weights(module, name))
    assert asked == [name]


@pytest.mark.parametrize(
    "name", ["./resnet18", "../resnet18", "~/resnet18", "/resnet18", "resnet18.pth", "a/b.safetensors"]
)
def test_what_looks_like_a_path_is_never_fetched(asked, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="no such weights file"):
        load_backbone_weights(backbone(), name)
    assert asked == []


@pytest.mark.parametrize("name", ["resnet18.tv_in1k", "weights/first"])
def test_a_file_that_is_there_wins_over_a_name(asked, tmp_path, monkeypatch, source, name):
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(exist_ok=True)
    torch.save(source, name)
    module = backbone()
    check_loaded(module, source, load_backbone_weights(module, name))
    assert asked == []
