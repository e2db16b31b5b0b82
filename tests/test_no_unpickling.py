"""Nothing that others wrote is executed: what the source may not call, and pickles in the place of every kind of file."""

import ast
import io
import pickle
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from frugalseg import create_model, load
from frugalseg.analysis.few_shot import read_counts
from frugalseg.analysis.maps import read_maps
from frugalseg.analysis.notebook.state import read_tensors
from frugalseg.commands.checkpoints import check_checkpoint
from frugalseg.commands.label_inputs import read_image_maps
from frugalseg.data.base import Sample
from frugalseg.data.coco_tags import load_instances
from frugalseg.data.io import read_image, read_mask
from frugalseg.data.kept import read as read_kept
from frugalseg.data.sbd import read_mat
from frugalseg.data.tags import read_tags
from frugalseg.data.unpack import unpack
from frugalseg.errors import FrugalsegError
from frugalseg.nn.weights import load_backbone_weights, read_file
from frugalseg.papers.dsmf.leaks import refuse_taught_backbone
from frugalseg.yaml_text import read_yaml
from tests.conftest import REPOSITORY
from tests.test_architecture import tree_of

SOURCE = REPOSITORY / "src" / "frugalseg"
MODULES = {
    "pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "dbm",
    "copyreg",
    "runpy",
    "code",
    "imp",
}
CALLS = {"eval", "exec", "compile", "__import__", "execfile"}
ATTRIBUTES = {
    "extractall",
    "unpack_archive",
    "system",
    "popen",
    "unsafe_load",
    "full_load",
    "load_all",
    "load_from_checkpoint",
}
LOADERS = ("torch.hub.", "torch.package.", "torch.jit.load", "torch.export.load")
MAY = {"predictor/export.py": "torch.export.load"}
"""Which unpickles, and is for files that this package wrote; it says so itself."""


def faults(tree: ast.AST) -> list[str]:
    """Calls and imports of a file that could run what it reads, one line each."""
    return [f"{node.lineno}: {fault}" for node in ast.walk(tree) if (fault := _fault(node))]


def _dotted(node: ast.AST) -> str:
    """`a.b.c` of names joined by dots; what stands before them, such as a call, is left out."""
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _given(node: ast.Call, name: str) -> object:
    """A constant that a call gives by name; None without it, the node where it is no constant."""
    value = next((word.value for word in node.keywords if word.arg == name), None)
    return value.value if isinstance(value, ast.Constant) else value


def _fault(node: ast.AST) -> str | None:
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        return next((f"imports {name}" for name in names if name.split(".")[0] in MODULES), None)
    if not isinstance(node, ast.Call):
        return None
    called = _dotted(node.func)
    first, _, last = called.partition(".")[0], "", called.rsplit(".", 1)[-1]
    if called in CALLS or ("." in called and last in ATTRIBUTES):
        return f"calls {called}"
    if called == "torch.load" and _given(node, "weights_only") is not True:
        return f"{called} without weights_only=True"
    if called.startswith(LOADERS):
        return f"calls {called}"
    if first in ("np", "numpy") and _given(node, "allow_pickle") not in (None, False):
        return f"{called} with allow_pickle"
    if called == "yaml.load" and not any(
        word.arg == "Loader" and _dotted(word.value) == "loader" for word in node.keywords
    ):
        return f"calls {called}"
    return f"{called} with shell" if _given(node, "shell") not in (None, False) else None


def test_the_source_calls_nothing_that_runs_what_it_reads():
    found = {}
    for file in sorted(SOURCE.rglob("*.py")):
        place = file.relative_to(SOURCE).as_posix()
        if wrong := [fault for fault in faults(tree_of(file.read_text())) if not fault.endswith(MAY.get(place, "-"))]:
            found[place] = wrong
    assert found == {}


def test_yaml_is_loaded_in_one_place():
    """`yaml_text.load_yaml`, which has its bounds; its callers give it subclasses of the safe loader."""
    places = [
        file.relative_to(SOURCE).as_posix()
        for file in sorted(SOURCE.rglob("*.py"))
        for node in ast.walk(tree_of(file.read_text()))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in ("yaml.load", "yaml.safe_load", "yaml.safe_load_all")
    ]
    # a file of ours, inside the package
    assert sorted(set(places)) == ["analysis/html/published.py", "yaml_text.py"]


@pytest.mark.parametrize(
    "code",
    [
        "import pickle", "from joblib import load", "import dill.source", "eval('1')", "torch.load(p)", "torch.load(p, weights_only=False)",
        "np.load(p, allow_pickle=True)", "numpy.load(p, allow_pickle=flag)", "yaml.load(t, Loader=yaml.Loader)", "yaml.unsafe_load(t)",
        "tar.extractall(p)", "subprocess.run(c, shell=True)", "os.system(c)", "torch.hub.load(a, b)", "M.load_from_checkpoint(p)",
        "shutil.unpack_archive(p)", "torch.jit.load(p)", "def f():\n    exec(x)",
    ],
)  # fmt: skip
def test_the_check_sees(code):
    assert len(faults(ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    [
        "torch.load(p, weights_only=True)",
        "np.load(p)",
        "re.compile(x)",
        "net.eval()",
        "torch.compile(net)",
        "json.load(f)",
    ],
)
def test_the_check_lets_pass(code):
    assert faults(ast.parse(code)) == []


# ---------------------------------------------------------------------- pickles in the place of files


class Trap:
    """Writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def bare(trap):
    return pickle.dumps(trap)


def old(trap):
    stream = io.BytesIO()
    torch.save({"state_dict": {"a": trap}, "hyper_parameters": trap}, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def new(trap):
    stream = io.BytesIO()
    torch.save({"state_dict": {"a": trap}, "hyper_parameters": {"_class_path": trap}}, stream)
    return stream.getvalue()


def npy(trap):
    stream = io.BytesIO()
    np.save(stream, np.asarray([trap], object), allow_pickle=True)
    return stream.getvalue()


def npz(trap):
    stream = io.BytesIO()
    names = ("keys", "m0", "ids", "labels", "seeds", "sums", "stamp", "arr_0")
    np.savez(stream, **{name: np.asarray([trap], object) for name in names})
    return stream.getvalue()


FORMS = {"bare": bare, "old": old, "new": new, "npy": npy, "npz": npz}
HERE = Sample(id="x", image=None, mask=None, tags=None)
READERS = {
    "checkpoint": ("x.ckpt", lambda path: check_checkpoint(path, "frugalseg.papers.sfc.SFC")),
    "load": ("x.ckpt", load),
    "create_model": ("x.ckpt", lambda path: create_model("mevt_tiny", path)),
    "state of a notebook": ("checkpoints/last.ckpt", lambda path: read_tensors(path.parent.parent, "a")),
    "weights": ("x.pth", read_file),
    "weights of a net": ("x.pth", lambda path: load_backbone_weights(torch.nn.Linear(2, 2), str(path))),
    "safetensors": ("x.safetensors", read_file),
    "taught backbone": ("x.pth", lambda path: refuse_taught_backbone(str(path), [1], 2)),
    "maps": ("x.npz", read_maps),
    "maps of an image": ("x.npz", lambda path: read_image_maps(path.parent, HERE, 21, (2, 2))),
    "counts": ("counts.npz", read_counts),
    "tags": ("tags.npz", lambda path: read_tags(path, 3, ["a"])),
    "tags as npy": ("tags.npy", lambda path: read_tags(path, 3, ["a"])),
    "instances json": ("instances_val2017.json", load_instances),
    "MATLAB": ("x.mat", read_mat),
    "image": ("x.jpg", read_image),
    "mask": ("x.png", lambda path: read_mask(path, 21)),
    "YAML": ("x.yaml", read_yaml),
    "zip": ("x.zip", lambda path: unpack(path, path.parent / "root")),
    "tar": ("x.tar", lambda path: unpack(path, path.parent / "root")),
}


@pytest.mark.parametrize("form", FORMS)
def test_traps_work(tmp_path, form):
    """Each of them runs when it is read as its makers did."""
    data = FORMS[form](Trap(tmp_path / "ran"))
    if form in ("npy", "npz"):
        found = np.load(io.BytesIO(data), allow_pickle=True)
        _ = found["keys"] if form == "npz" else found
    else:
        pickle.loads(data) if form == "bare" else torch.load(io.BytesIO(data), weights_only=False)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reader", READERS)
def test_nothing_runs(tmp_path, reader, form):
    name, read = READERS[reader]
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(FORMS[form](Trap(tmp_path / "ran")))
    if reader == "taught backbone" or (reader == "zip" and form in ("new", "npz")):
        read(path)  # who reads the weights refuses them; and both forms are zips, whose files are only written
    else:
        with pytest.raises(FrugalsegError) as caught:
            read(path)
        assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", FORMS)
def test_caches_of_ours(tmp_path, form):
    """Kept pixels, and the cache of an instances json, are made again."""
    data = FORMS[form](Trap(tmp_path / "ran"))
    (tmp_path / "x.npy").write_bytes(data)
    with pytest.raises((ValueError, EOFError, OSError)):
        read_kept(tmp_path / "x.npy")
    annotations = tmp_path / "instances_val2017.json"
    annotations.write_text('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}')
    (tmp_path / ".frugalseg").mkdir()
    (tmp_path / ".frugalseg/instances_val2017.npz").write_bytes(data)
    try:
        load_instances(annotations)
    except FrugalsegError as error:
        assert "\n" not in str(error)
    assert not (tmp_path / "ran").exists()


def test_pickles_inside_archives_are_files_like_others(tmp_path):
    data = bare(Trap(tmp_path / "ran"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.pkl", data)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        info = tarfile.TarInfo("b.pkl")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    for name in ("x.zip", "x.tar"):
        assert unpack(tmp_path / name, tmp_path / "root") == 1
    assert (tmp_path / "root/a.pkl").read_bytes() == (tmp_path / "root/b.pkl").read_bytes() == data
    assert not (tmp_path / "ran").exists()
