"""Who may import whom (design.md section 2), and the budgets of section 1, on the syntax trees of all files."""

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "src" / "frugalseg"
MAX_FILE, MEDIAN_FILE, MAX_BODY = 350, 120, 40

BARE = {"errors", "optim", "batch", "_version"}
"""Import nothing of the package; everyone but `ops` may import them."""
GUARDS = {"limits", "yaml_text"}
"""What files from elsewhere may ask for; import `errors` alone, and everyone but `ops` may import them."""
SHARED = BARE | GUARDS
EVERYTHING = {"*"}
ALLOWED: dict[str, set[str]] = {
    **{name: set() for name in BARE},
    **{name: {"errors"} for name in GUARDS},
    "keeping": {"errors"},
    "run": {"errors", "keeping"},
    "position": {"errors"},
    "ops": set(),
    "nn": {"ops", *SHARED},
    "papers": {"ops", "nn", *SHARED},
    "stages": {"ops", "nn", "position", *SHARED},
    "data": {"ops", "position", *SHARED},
    "miniature": {"ops", "data", *SHARED},
    "callbacks": {"ops", "run", *SHARED},
    "analysis": {"ops", "data", "run", *SHARED},
    "convert": EVERYTHING,
    "commands": EVERYTHING,
    "cli": EVERYTHING,
    "training": EVERYTHING,
    "predictor": EVERYTHING,
    "__main__": {"cli"},
    "__init__": {"_version"},
}
"""Part of the package -> parts it may import besides itself."""
ENTRY = {"commands", "cli", "training"}
MAY_IMPORT_ENTRY = {"cli", "training", "__main__", "__init__"}
LAZILY = {("cli", "training")}
"""Only inside a function; `__init__` may import anything that way, and for type checkers alone."""
OPS_LIBRARIES = {"torch", "numpy", "scipy"}
ONLY_IN = {"albumentations": "data/transforms.py", "torch_geometric": "papers/dsmf/"}
"""Library -> the one file, or the one folder, that imports it."""


COMPUTED = {"cli.py", "data/__init__.py"}
"""Pick a module by a computed name: the command line its verbs, the data package its own modules."""


class Import(NamedTuple):
    """One imported module, as an absolute dotted name."""

    target: str
    line: int
    lazy: bool


@cache
def tree_of(text: str) -> ast.Module:
    """Syntax tree; most files of a copied tree are equal to those of the original."""
    return ast.parse(text)


def sources(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def module_exists(package: Path, dotted: str) -> bool:
    path = package.parent.joinpath(*dotted.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def _from_names(package: Path, file: Path, node: ast.ImportFrom) -> Iterator[str]:
    """Modules that `from x import y` names: x.y where that is a module, else x."""
    if node.level:
        here = ["frugalseg", *file.relative_to(package).parts[:-1]]
        base = ".".join([*here[: len(here) - node.level + 1], *([node.module] if node.module else [])])
    else:
        base = node.module or ""
    for alias in node.names:
        full = f"{base}.{alias.name}"
        inside = base.split(".")[0] == "frugalseg"
        yield full if inside and alias.name != "*" and module_exists(package, full) else base


def imports_of(package: Path, file: Path) -> Iterator[Import]:
    """All imports of a file: at the top, in functions, under TYPE_CHECKING, relative, and by name in `import_module`."""

    def walk(node: ast.AST, lazy: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            # what only type checkers see is never imported
            typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and child in node.body
            late = lazy or typing
            inner = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from (Import(name, child.lineno, late) for name in _from_names(package, file, child))
            elif isinstance(child, ast.Call):
                name = child.func.attr if isinstance(child.func, ast.Attribute) else getattr(child.func, "id", "")
                if name in ("import_module", "__import__"):
                    literal = child.args[0].value if child.args and isinstance(child.args[0], ast.Constant) else None
                    yield Import(literal if isinstance(literal, str) else "?", child.lineno, late)
            yield from walk(child, inner)

    yield from walk(tree_of(file.read_text()), False)


def part_of(parts: tuple[str, ...]) -> tuple[str, str]:
    """(row of the table, unit inside it): a paper or a stage is a unit of its own."""
    if not parts:
        return "__init__", ""
    return parts[0], parts[1] if parts[0] in ("papers", "stages") and len(parts) > 1 else ""


def _forbidden(source: tuple[str, str], found: Import) -> bool:
    """Whether one part of the package may not import another one this way."""
    target = part_of(tuple(found.target.split(".")[1:]))
    if source[0] == "__init__" and found.lazy:
        return False
    if (source[0], target[0]) in LAZILY and not found.lazy:
        return True
    if target[0] == source[0]:
        # one paper never imports another one, nor the package of all papers what is in it
        return source[1] != target[1] and bool(target[1])
    if target[0] in ENTRY and source[0] not in MAY_IMPORT_ENTRY:
        return True
    allowed = ALLOWED[source[0]]
    return allowed is not EVERYTHING and target[0] not in allowed


def _forbidden_library(source: tuple[str, str], place: str, library: str) -> bool:
    if library in ONLY_IN and not place.startswith(ONLY_IN[library]):
        return True
    return source[0] == "ops" and library not in OPS_LIBRARIES and library not in sys.stdlib_module_names


def violations(package: Path) -> list[str]:
    """Forbidden imports of all files, one line each: `file:line imports target`."""
    found = []
    for file in sources(package):
        place = file.relative_to(package)
        parts = place.with_suffix("").parts
        source = part_of(() if parts == ("__init__",) else parts[:-1] if parts[-1] == "__init__" else parts)
        for item in imports_of(package, file):
            if item.target == "?":
                wrong = place.as_posix() not in COMPUTED
            elif item.target.split(".")[0] == "frugalseg":
                wrong = source[0] not in ALLOWED or _forbidden(source, item)
            else:
                wrong = _forbidden_library(source, place.as_posix(), item.target.split(".")[0])
            if wrong:
                found.append(f"{place.as_posix()}:{item.line} imports {item.target}")
    return found


def test_nobody_imports_what_the_plan_forbids():
    assert violations(PACKAGE) == []


def test_every_part_has_a_row_in_the_table():
    parts = {part_of(file.relative_to(PACKAGE).with_suffix("").parts)[0] for file in sources(PACKAGE)}
    assert parts <= set(ALLOWED)
    assert {"ops", "nn", "papers", "stages", "data", "analysis", "cli"} <= parts


# ---------------------------------------------------------------------- the checker itself


@pytest.fixture
def copy(tmp_path):
    """A copy of the tree with two more papers and stages, and a function that adds a line to one of its files."""
    package = tmp_path / "frugalseg"
    shutil.copytree(
        PACKAGE, package, ignore=lambda folder, names: [n for n in names if "." in n and not n.endswith(".py")]
    )
    for new in ("papers/dsmf", "papers/cti", "stages/irn"):
        (package / new).mkdir(exist_ok=True)
        for name in ("__init__.py", "model.py"):
            (package / new / name).touch()

    def add(place, code):
        file = package / place
        file.write_text(f"{file.read_text()}\n{code}\n")
        return violations(package)

    return add


IN_FUNCTION = "def f():\n    "
FORBIDDEN = [
    ("errors.py", "from frugalseg.batch import TagBatch", "frugalseg.batch"),
    ("batch.py", "import frugalseg.errors", "frugalseg.errors"),
    ("optim.py", "from frugalseg import ops", "frugalseg.ops"),
    ("_version.py", "from . import errors", "frugalseg.errors"),
    ("run.py", "from frugalseg.ops.cam import resize", "frugalseg.ops.cam"),
    ("run.py", "from frugalseg.batch import TagBatch", "frugalseg.batch"),
    ("ops/cam.py", "from frugalseg.nn.backbone import Stages", "frugalseg.nn.backbone"),
    ("ops/cam.py", "from ..errors import MapsError", "frugalseg.errors"),
    ("ops/cam.py", "import timm", "timm"),
    ("ops/cam.py", IN_FUNCTION + "import lightning.pytorch", "lightning.pytorch"),
    ("ops/__init__.py", "from PIL import Image", "PIL"),
    ("nn/backbone.py", "from frugalseg.data.io import read_mask", "frugalseg.data.io"),
    ("analysis/maps.py", "from frugalseg.convert import SOURCES", "frugalseg.convert"),
    ("convert/ours.py", "from frugalseg.training import run_trainer", "frugalseg.training"),
    ("nn/__init__.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
    ("nn/weights.py", IN_FUNCTION + "from frugalseg.run import read_json", "frugalseg.run"),
    ("papers/sfc/task.py", "from frugalseg.data import VOC", "frugalseg.data"),
    ("papers/sfc/task.py", "from frugalseg import data", "frugalseg.data"),
    ("papers/sfc/task.py", "from ... import data", "frugalseg.data"),
    ("papers/sfc/task.py", IN_FUNCTION + "from frugalseg.data import VOC", "frugalseg.data"),
    (
        "papers/sfc/task.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from frugalseg.data import VOC",
        "frugalseg.data",
    ),
    (
        "papers/sfc/task.py",
        "try:\n    import frugalseg.data.io as io\nexcept ImportError:\n    io = None",
        "frugalseg.data.io",
    ),
    ("papers/sfc/task.py", 'import importlib\nio = importlib.import_module("frugalseg.data.io")', "frugalseg.data.io"),
    ("papers/sfc/task.py", 'io = __import__("frugalseg.data")', "frugalseg.data"),
    ("papers/sfc/task.py", "import importlib\nio = importlib.import_module(NAME)", "?"),
    ("papers/sfc/model.py", "from frugalseg.papers.cti.model import x", "frugalseg.papers.cti.model"),
    ("papers/sfc/model.py", "from ..cti import model", "frugalseg.papers.cti.model"),
    ("papers/sfc/model.py", "from frugalseg.papers import cti", "frugalseg.papers.cti"),
    ("papers/__init__.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
    ("papers/sfc/model.py", "from frugalseg.stages.tags import TagClassifier", "frugalseg.stages.tags"),
    ("papers/sfc/model.py", "from frugalseg.callbacks import CamWriter", "frugalseg.callbacks"),
    ("papers/sfc/model.py", "from frugalseg.run import Run", "frugalseg.run"),
    ("papers/sfc/model.py", "import torch_geometric.nn", "torch_geometric.nn"),
    ("stages/tags/task.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
    ("stages/tags/task.py", "from frugalseg.stages.irn.model import x", "frugalseg.stages.irn.model"),
    ("stages/tags/task.py", "from frugalseg.data.voc import VOC", "frugalseg.data.voc"),
    ("data/voc.py", "from frugalseg.nn.weights import load_backbone_weights", "frugalseg.nn.weights"),
    ("data/voc.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
    ("data/voc.py", "from frugalseg.stages.tags import TagClassifier", "frugalseg.stages.tags"),
    ("data/voc.py", "from frugalseg.miniature import voc", "frugalseg.miniature.voc"),
    ("data/voc.py", "from frugalseg.run import Run", "frugalseg.run"),
    ("data/recipes.py", "import albumentations as A", "albumentations"),
    ("data/recipes.py", IN_FUNCTION + "from albumentations.core import serialization", "albumentations.core"),
    ("miniature/voc.py", "from frugalseg.nn.backbone import Stages", "frugalseg.nn.backbone"),
    ("miniature/voc.py", "from frugalseg.analysis.maps import read_maps", "frugalseg.analysis.maps"),
    ("callbacks/progress.py", "from frugalseg.data.io import write_atomic", "frugalseg.data.io"),
    ("nn/weights.py", "from frugalseg.run import write_json", "frugalseg.run"),
    ("callbacks/progress.py", "from frugalseg.papers.sfc.task import SFC", "frugalseg.papers.sfc.task"),
    ("analysis/maps.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
    ("analysis/maps.py", "from frugalseg.commands.progress import counter", "frugalseg.commands.progress"),
    ("analysis/maps.py", IN_FUNCTION + "from frugalseg.training import run_trainer", "frugalseg.training"),
    ("commands/report.py", "from frugalseg.cli import main", "frugalseg.cli"),
    ("commands/report.py", IN_FUNCTION + "from frugalseg.training import run_trainer", "frugalseg.training"),
    ("data/voc.py", "import frugalseg.cli", "frugalseg.cli"),
    ("data/voc.py", "import frugalseg", "frugalseg"),
    ("ops/cam.py", "from frugalseg import __version__", "frugalseg"),
    ("cli.py", "from frugalseg.training import run_trainer", "frugalseg.training"),
    ("__init__.py", "from frugalseg.cli import main", "frugalseg.cli"),
    ("__init__.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
    ("__init__.py", "if TYPE_CHECKING:\n    pass\nelse:\n    import frugalseg.predictor", "frugalseg.predictor"),
    ("predictor/base.py", "from frugalseg.training import run_trainer", "frugalseg.training"),
    ("papers/sfc/model.py", "from frugalseg.predictor import Predictor", "frugalseg.predictor"),
    ("__main__.py", "from frugalseg.papers.sfc import SFC", "frugalseg.papers.sfc"),
]


@pytest.mark.parametrize(("place", "code", "target"), FORBIDDEN)
def test_a_forbidden_import_is_reported(copy, place, code, target):
    reported = copy(place, code)
    assert len(reported) == 1
    assert reported[0].startswith(f"{place}:")
    assert reported[0].endswith(f" imports {target}")


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("run.py", "from frugalseg.errors import ConfigError"),
        ("ops/cam.py", "import math\nimport scipy.sparse\nfrom frugalseg.ops.palette import heat"),
        ("nn/backbone.py", "from frugalseg.ops.cam import resize\nfrom frugalseg.errors import ConfigError"),
        ("papers/sfc/task.py", "from .bank import ImageBank\nfrom frugalseg.nn.weights import log"),
        ("papers/dsmf/model.py", "import torch_geometric.nn"),
        ("stages/irn/model.py", "from frugalseg import ops\nfrom frugalseg.optim import poly_sgd"),
        ("data/transforms.py", IN_FUNCTION + "import albumentations as B"),
        ("miniature/voc.py", "from frugalseg.data.voc import class_table"),
        ("callbacks/progress.py", "from frugalseg.batch import TagBatch\nfrom frugalseg.errors import MapsError"),
        ("analysis/maps.py", "from frugalseg.run import read_json\nfrom frugalseg.batch import IGNORE_INDEX"),
        ("commands/report.py", "from frugalseg.papers.sfc import SFC\nfrom frugalseg.run import Run"),
        ("training.py", "from frugalseg.papers.sfc import SFC\nfrom frugalseg.data import VOC"),
        ("cli.py", IN_FUNCTION + "from frugalseg.training import run_trainer"),
        ("__init__.py", IN_FUNCTION + "from frugalseg.papers.sfc import SFC"),
        ("__init__.py", "if TYPE_CHECKING:\n    from frugalseg.papers.sfc import SFC"),
        ("commands/report.py", "from frugalseg.predictor import Predictor"),
        ("__main__.py", "from frugalseg.cli import console"),
    ],
)
def test_an_allowed_import_is_not_reported(copy, place, code):
    assert copy(place, code) == []


def test_the_data_package_offers_what_its_modules_hold():
    """Its names are imported on first use, so nothing else would notice a wrong one."""
    import frugalseg.data as data

    assert set(data.__all__) == set(data._HOME)
    for name, module in data._HOME.items():
        assert getattr(data, name).__module__ == f"frugalseg.data.{module}"
    assert not hasattr(data, "nothing")


def test_listing_and_downloading_wait_for_neither_torch_nor_lightning():
    code = (
        "import sys, frugalseg, frugalseg.data.coco_index, frugalseg.commands.data\n"
        "print([name for name in ('torch', 'lightning', 'timm') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------- budgets


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return function.end_lineno - min(s.lineno for s in body) + 1 if body else 0


def long_functions(package: Path) -> list[str]:
    return [
        f"{file.relative_to(package).as_posix()}:{node.lineno} {node.name} has {body_lines(node)} lines"
        for file in sources(package)
        for node in ast.walk(tree_of(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > MAX_BODY
    ]


def long_files(package: Path) -> list[str]:
    lengths = {file.relative_to(package).as_posix(): len(file.read_text().splitlines()) for file in sources(package)}
    return [f"{place} has {lines} lines" for place, lines in lengths.items() if lines > MAX_FILE]


def is_overload(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    return [ast.unparse(each) for each in node.decorator_list] == ["overload"]


def undocumented(package: Path) -> list[str]:
    """Modules, public classes and public functions without a docstring; what is inside functions is private.

    Overloads are signatures: what they do is told once, where it is done.
    """

    def walk(node: ast.AST, name: str) -> Iterator[str]:
        if ast.get_docstring(node) is None:
            yield name
        for child in node.body:
            kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
            if isinstance(child, kinds) and not child.name.startswith("_") and not is_overload(child):
                if isinstance(child, ast.ClassDef):
                    yield from walk(child, f"{name}:{child.name}")
                elif ast.get_docstring(child) is None:
                    yield f"{name}:{child.name}"

    return [
        entry for f in sources(package) for entry in walk(tree_of(f.read_text()), f.relative_to(package).as_posix())
    ]


def test_no_file_is_too_long():
    assert long_files(PACKAGE) == []


def test_the_median_file_is_short():
    lengths = sorted(len(file.read_text().splitlines()) for file in sources(PACKAGE))
    assert lengths[len(lengths) // 2] <= MEDIAN_FILE


def test_no_function_is_too_long():
    assert long_functions(PACKAGE) == []


def test_everything_public_is_documented():
    assert undocumented(PACKAGE) == []


def test_the_budgets_can_fail(tmp_path):
    arguments = "".join(f"    a{i}: int = 0,\n" for i in range(50))
    docstring = '    """Long.\n' + "\n" * 50 + '    """\n'
    statement = "    a0 += 1\n"
    (tmp_path / "good.py").write_text(f'"""Doc."""\n\n\ndef fits(\n{arguments}):\n{docstring}{statement * MAX_BODY}')
    assert long_functions(tmp_path) == long_files(tmp_path) == undocumented(tmp_path) == []
    inner = "    def inner():\n        pass\n"
    (tmp_path / "bad.py").write_text(
        f"def wide():\n{statement * (MAX_BODY + 1)}\nclass A:\n    def method(self):\n        pass\n{inner}"
        + "\n" * MAX_FILE
    )
    assert [line.split()[1] for line in long_functions(tmp_path)] == ["wide"]
    assert [line.split()[0] for line in long_files(tmp_path)] == ["bad.py"]
    assert undocumented(tmp_path) == ["bad.py", "bad.py:wide", "bad.py:A", "bad.py:A:method", "bad.py:A:inner"]
    (tmp_path / "bad.py").write_text('"""Doc."""\n\n\n@overload\ndef f(): ...\n@cache\ndef g(): ...\n')
    assert undocumented(tmp_path) == ["bad.py:g"]
