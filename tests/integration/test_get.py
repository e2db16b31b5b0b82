"""`frugalseg data get` against a web server on the loopback; nothing else can be reached."""

import argparse
import hashlib
import io
import socket
import tarfile
import zipfile

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from frugalseg.commands import data_prepare
from frugalseg.commands.benchmarks import BENCHMARKS
from frugalseg.commands.data_get import MODELS, add_parser, run_get
from frugalseg.data import fetch
from frugalseg.data.sources import NEXT, SOURCES, STEPS, Source, steps
from frugalseg.data.voc import index
from frugalseg.errors import ConfigError, DiskFullError, DownloadError
from frugalseg.nn.weights import load_backbone_weights
from tests.data.conftest import VAL, make_voc
from tests.data.web import Served, serve

MODEL = "mobilenetv3_small_050.lamb_in1k"  # timm's smallest with weights
COMMIT = "0123456789" * 4


@pytest.fixture
def web(monkeypatch):
    """The server; names other than its own do not resolve."""
    genuine = socket.getaddrinfo

    def local(host, *rest, **more):
        assert host == "127.0.0.1", f"something asked for {host}"
        return genuine(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", local)
    monkeypatch.setattr(fetch, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serve() as running:
        yield running


@pytest.fixture
def get(capsys):
    """Run `get` with some words; returns what was printed."""

    def run(*words):
        parser = argparse.ArgumentParser()
        add_parser(parser.add_subparsers())
        assert run_get(parser.parse_args(["get", *map(str, words)])) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def voc_archive(web, monkeypatch, tmp_path):
    """A tiny VOC as the official archive is: VOCdevkit/VOC2012/..."""
    root = make_voc(tmp_path / "made/VOCdevkit/VOC2012")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(root.parent, "VOCdevkit")
    content = packed.getvalue()
    source = Source(web.url("/voc.tar"), "voc.tar", f"md5:{hashlib.md5(content).hexdigest()}", len(content))
    monkeypatch.setitem(SOURCES, "voc", (source,))
    web.files["/voc.tar"] = Served(content)
    return source


def test_voc_from_the_web_to_a_check(get, web, voc_archive, tmp_path):
    root = tmp_path / "data"
    printed = get("voc", "--root", root)
    lines = printed.splitlines()
    size = fetch.in_units(voc_archive.size)
    assert lines[0] == f"voc: files 1, {size}, to {root}"
    assert lines[1] == f"voc.tar: {size} from {voc_archive.url}"
    assert lines[2] == "voc.tar: md5 is right"
    assert lines[3] == f"voc.tar: 33 files unpacked in {root}"
    assert lines[4:] == ["next:", f"  frugalseg data check voc --root {root}/VOCdevkit/VOC2012"]
    assert (root / "archives/voc.tar").is_file()
    samples = index(root / "VOCdevkit/VOC2012", "val")
    assert [sample.id for sample in samples] == VAL
    assert all(sample.mask and sample.mask.is_file() for sample in samples)


def test_a_second_command_fetches_nothing(get, web, voc_archive, tmp_path):
    get("voc", "--root", tmp_path)
    web.requests.clear()
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    assert "voc.tar: is there, checking\nvoc.tar: md5 is right\nvoc.tar: 1 files unpacked" in get(
        "voc", "--root", tmp_path
    )
    assert "voc.tar: every file is there already" in get("voc", "--root", tmp_path)
    assert web.requests == []


def test_removed_archives_are_not_fetched_again(get, web, voc_archive, tmp_path):
    get("voc", "--root", tmp_path, "--remove-archives")
    assert not (tmp_path / "archives/voc.tar").exists()
    assert (tmp_path / "VOCdevkit/VOC2012/JPEGImages").is_dir()
    web.requests.clear()
    note = tmp_path / "archives/voc.tar.unpacked"
    assert f"there already, unpacked; to fetch it again delete {note}" in get("voc", "--root", tmp_path)
    assert ", unpacked, md5:" in get("voc", "--root", tmp_path, "--list")
    assert web.requests == []
    note.unlink()
    assert "every file is there already" in get("voc", "--root", tmp_path)
    assert web.ranges() == [None]


def test_an_interrupted_command_continues(get, web, voc_archive, tmp_path):
    served = web.files["/voc.tar"]
    served.drops, served.forever = [10_000], True
    with pytest.raises(DownloadError, match="run the same command again"):
        get("voc", "--root", tmp_path)
    assert ", 50.00 kB there, md5:" in get("voc", "--root", tmp_path, "--list")
    served.drops = []
    assert "md5 is right" in get("voc", "--root", tmp_path)
    assert web.ranges()[-1] == "bytes=50000-"


def test_a_wrong_archive_is_not_unpacked(get, web, voc_archive, tmp_path):
    content = web.files["/voc.tar"].content
    web.files["/voc.tar"].content = content[:-1] + b"?"
    with pytest.raises(DownloadError, match="not what was published"):
        get("voc", "--root", tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if "made" not in path.parts] == ["archives"]


def test_a_full_disk(get, voc_archive, monkeypatch, tmp_path):
    monkeypatch.setattr(fetch, "_free", lambda _: 1)
    with pytest.raises(DiskFullError, match="1 bytes are free"):
        get("voc", "--root", tmp_path / "data")


def test_no_checksum_is_published(get, web, monkeypatch, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("train2017/000000000009.png", b"mask")
    web.files["/maps.zip"] = Served(packed.getvalue())
    source = SOURCES["coco-stuff"][0]._replace(url=web.url("/maps.zip"), name="maps.zip")
    monkeypatch.setitem(SOURCES, "coco-stuff", (source,))
    printed = get("coco-stuff", "--root", tmp_path)
    assert "coco-stuff: files 1, 1 of unpublished size, to" in printed
    assert "maps.zip: size not published from" in printed
    sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
    assert f"maps.zip: no checksum is published for it; what came has sha256 {sha256}" in printed
    assert (tmp_path / "stuffthingmaps/train2017/000000000009.png").read_bytes() == b"mask"


def test_only_some_files_and_a_plain_one(get, web, monkeypatch, tmp_path):
    archive, split = SOURCES["sbd"]
    content = b"2008_000002\n"
    split = split._replace(url=web.url("/s"), digest=f"md5:{hashlib.md5(content).hexdigest()}")
    monkeypatch.setitem(SOURCES, "sbd", (archive, split))
    web.files["/s"] = Served(content)
    printed = get("sbd", "--root", tmp_path, "--only", "train_noval.txt")
    assert (tmp_path / "benchmark_RELEASE/dataset/train_noval.txt").read_bytes() == content
    assert "unpacked" not in printed
    assert [path for _, path, _ in web.requests] == ["/s"]
    with pytest.raises(ConfigError, match=r"--only x: sbd has benchmark\.tgz, train_noval\.txt"):
        get("sbd", "--root", tmp_path, "--only", "x")


def test_the_real_tables_can_be_listed(get, web, tmp_path):
    printed = get("coco2014", "--root", tmp_path, "--list")
    assert printed.startswith(
        f"coco2014: files 3, 20.41 GB, to {tmp_path}\n  train2014.zip: 13.51 GB, not there, sha256:"
    )
    assert "no checksum" in get("coco-stuff", "--root", tmp_path, "--list")
    assert "files 2, 1.42 GB and 1 of unpublished size" in get("sbd", "--root", tmp_path, "--list")
    assert web.requests == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("benchmark", sorted(set(STEPS) - set(SOURCES)))
def test_steps_are_printed(get, web, tmp_path, benchmark):
    assert steps(benchmark, str(tmp_path)) in get(benchmark, "--root", tmp_path)
    assert web.requests == []


def test_the_commands_that_come_next_exist(tmp_path):
    parser = argparse.ArgumentParser(exit_on_error=False)
    actions = parser.add_subparsers(required=True)
    add_parser(actions)
    data_prepare.add_parser(actions)
    check = actions.add_parser("check", exit_on_error=False)
    check.add_argument("benchmark", choices=list(BENCHMARKS))
    check.add_argument("--root", required=True)
    for benchmark in {*SOURCES, *STEPS}:
        text = (NEXT.get(benchmark) or STEPS[benchmark]).format(root=tmp_path)
        commands = [line.split()[2:] for line in text.splitlines() if line.strip().startswith("frugalseg data ")]
        assert commands[-1][0] == ("prepare" if benchmark == "sbd" else "check")
        for words in commands:
            parser.parse_args(words)


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["voc", "--model", "x"], "--model"),
        (["voc", "--endpoint", "x"], "--endpoint"),
        (["weights", "--only", "x"], "--only"),
        (["weights", "--remove-archives"], "--remove-archives"),
    ],
)
def test_options_that_do_not_belong(get, tmp_path, words, option):
    with pytest.raises(ConfigError, match=f"{option} has no meaning for {words[0]}"):
        get(*words, "--root", tmp_path)


# ---------------------------------------------------------------------- weights


@pytest.fixture
def hub(web, monkeypatch, tmp_path):
    """Serve one model as the hub does; returns what is served."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    torch.manual_seed(0)
    state = timm.create_model(MODEL.partition(".")[0]).state_dict()
    save_file(state, tmp_path / "served.safetensors")
    content = (tmp_path / "served.safetensors").read_bytes()
    served = Served(content, f'"{hashlib.sha256(content).hexdigest()}"', headers={"X-Repo-Commit": COMMIT})
    web.files[f"/timm/{MODEL}/resolve/main/model.safetensors"] = served
    return served


@pytest.fixture
def get_weights(get, web, hub, tmp_path):
    return lambda *words: get("weights", "--root", tmp_path / "w", "--endpoint", web.url(""), *words)


def test_weights(get_weights, web, hub, tmp_path):
    target = tmp_path / f"w/{MODEL}.safetensors"
    printed = get_weights("--model", MODEL)
    assert printed == f"{MODEL}: from timm/{MODEL}\n  --model.init_args.weights {target}\n"
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    assert not target.is_symlink()
    assert target.read_bytes() == hub.content
    torch.manual_seed(1)
    module = timm.create_model(MODEL.partition(".")[0], num_classes=0)
    source = timm.create_model(MODEL.partition(".")[0], num_classes=0)
    assert load_backbone_weights(module, str(target)) > 100
    assert not torch.equal(module.conv_stem.weight, source.conv_stem.weight)
    web.requests.clear()
    assert f"{MODEL}: there already" in get_weights("--model", MODEL)
    assert f"{MODEL}: timm/{MODEL}, there" in get_weights("--model", MODEL, "--list")
    assert web.requests == []


def test_a_revision(get_weights, web, hub, tmp_path):
    web.files[f"/timm/{MODEL}/resolve/v1/model.safetensors"] = hub
    get_weights("--model", MODEL, "--revision", "v1")
    assert {path for _, path, _ in web.requests} == {f"/timm/{MODEL}/resolve/v1/model.safetensors"}


def test_weights_with_another_sum_than_the_hub_says(get_weights, hub, tmp_path):
    hub.etag = f'"{"0" * 64}"'
    with pytest.raises(DownloadError, match=f"the sha256 of .* is not {'0' * 64}; delete it") as caught:
        get_weights("--model", MODEL)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()


def test_weights_that_are_none(get_weights, hub, tmp_path):
    hub.content, hub.etag = b"<html>please log in</html>", '"abc"'
    with pytest.raises(DownloadError, match=r"model\.safetensors cannot be fetched"):
        get_weights("--model", MODEL)
    assert not (tmp_path / "w").exists()


def test_a_hub_without_the_file(get_weights, web, tmp_path):
    web.files.clear()
    with pytest.raises(DownloadError) as caught:
        get_weights("--model", MODEL)
    assert str(caught.value).startswith(f"timm/{MODEL}: model.safetensors cannot be fetched (")
    assert "\n" not in str(caught.value)


def test_no_network(get_weights, hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DownloadError, match="check the network, HF_HUB_OFFLINE"):
        get_weights("--model", MODEL)


def test_a_full_cache(get_weights, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(DiskFullError, match=f"{tmp_path}/cache: the disk or your quota is full"):
        get_weights("--model", MODEL)


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet50.tv_in1", "near are resnet50.tv_in1k"), ("resnet50.nope", "resnet50."), ("qqqq", "list_pretrained")],
)
def test_an_unknown_model(get_weights, web, name, near):
    with pytest.raises(ConfigError) as caught:
        get_weights("--model", MODEL, name)
    assert f"--model {name}: timm has no weights of that name" in str(caught.value)
    assert near in str(caught.value)
    assert web.requests == []


def test_the_default_models_are_on_the_hub(get_weights, web):
    printed = get_weights("--list")
    assert [line.split(":")[0].strip() for line in printed.splitlines()] == list(MODELS)
    assert all(f"timm/{name}, not there" in printed for name in MODELS)
    assert web.requests == []


def test_help_says_which_paper_takes_which_model(capsys):
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    with pytest.raises(SystemExit):
        parser.parse_args(["get", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "deit_small_patch16_224.fb_in1k (CTI)" in text
