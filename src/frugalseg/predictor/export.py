"""Graphs of nets as files: `torch.export` and ONNX, with what must be known of them inside.

A file takes `image` (B, 3, H, W) float32, RGB of 0..255, and gives what its graph gives (`export_nets`). Sides are left
open; where the net takes multiples alone, `padded_pixels` brings an image to them. `facts_of` says what the file holds
beside the graph, as JSON: ONNX's metadata under `frugalseg`, `frugalseg.json` among the extra files of `torch.export`.
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.export import Dim

from frugalseg.data.io import write_atomic
from frugalseg.errors import CheckpointError, ConfigError
from frugalseg.predictor.base import Predictor
from frugalseg.predictor.export_nets import Graph, graph_of

FACTS = "frugalseg.json"
"""Of the extra files of `torch.export`."""
KEY = "frugalseg"
"""Of ONNX's metadata."""
OPSET = 20
FORMATS = ("torch", "onnx")
TOLERANCE = {"torch": 1e-5, "onnx": 1e-3}
"""Largest difference from the net itself, over the largest absolute value of its answer."""
Size = tuple[int, int]
Answer = Callable[..., list[NDArray[np.float32]]]
"""Inputs as arrays -> outputs."""


class Checked(NamedTuple):
    """How far a file's answer is from the net's, for one image."""

    size: Size
    difference: float
    """Largest, over the largest absolute value of the net's answer."""
    agree: float
    """Share of pixels or cells with the same largest channel."""


def facts_of(predictor: Predictor, graph: Graph, size: Size | None) -> dict[str, Any]:
    """What a file says of itself.

    Args:
        predictor: whose net it is.
        graph: of the net.
        size: (H, W) where sides are fixed.
    """
    source: Any = getattr(predictor, "source", None)
    count = len(predictor.class_names)
    return {
        "kind": predictor.kind,
        "input": "image (B, 3, H, W) float32 RGB 0..255" + (", tags (B, C) float32 0/1" if graph.classes else ""),
        "outputs": list(graph.outputs),
        "size": None if size is None else list(size),
        "multiple": 1 if size is not None else graph.multiple,
        "stride": graph.stride,
        "mean": list(source.mean),
        "std": list(source.std),
        "class_names": list(predictor.class_names),
        "palette": predictor.palette[:count].tolist(),
        "threshold": getattr(predictor, "threshold", None),
        "versions": {name: metadata.version(name) for name in ("frugalseg", "torch")},
    }


def padded_pixels(pixels: NDArray[np.uint8], facts: dict[str, Any]) -> NDArray[np.float32]:
    """An image as a file takes it: filled up with the mean colour to the right and below, as predictors do.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        facts: of the file.

    Returns:
        (1, 3, H', W') float32, whose sides are multiples of the file's; cut its answer to the image.
    """
    height, width = (-(-side // facts["multiple"]) * facts["multiple"] for side in pixels.shape[:2])
    canvas = np.empty((1, 3, height, width), np.float32)
    canvas[:] = 255 * np.asarray(facts["mean"], np.float32)[None, :, None, None]
    canvas[0, :, : pixels.shape[0], : pixels.shape[1]] = pixels.transpose(2, 0, 1)
    return canvas


def export(predictor: Predictor, form: str, out: Path, size: Size | None = None, opset: int = OPSET) -> dict[str, Any]:
    """Write a file whole or not at all.

    Args:
        predictor: of `frugalseg.load`, on the CPU.
        form: of `FORMATS`.
        out: the file.
        size: (H, W) to fix; None leaves sides open.
        opset: of ONNX.

    Returns:
        What the file says of itself.

    Raises:
        ConfigError: the net cannot be exported so, or a library is missing.
    """
    graph = graph_of(predictor)
    facts = facts_of(predictor, graph, size)
    with _told(form, size):
        data = _torch(graph, facts, size) if form == "torch" else _onnx(graph, facts, size, opset)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(out, lambda stream: stream.write(data))
    return facts


def check(path: Path, form: str, predictor: Predictor, sizes: Sequence[Size]) -> list[Checked]:
    """Ask a file that `export` wrote and the net the same.

    Args:
        path: the file.
        form: of `FORMATS`.
        predictor: whose net is in it.
        sizes: (H, W) of images of noise.

    Raises:
        CheckpointError: an answer lies beyond `TOLERANCE`.
        ConfigError: a library is missing.
    """
    answer, facts = (open_torch if form == "torch" else open_onnx)(path)
    graph = graph_of(predictor)
    found = []
    for number, size in enumerate(sizes):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        given = [padded_pixels(pixels, facts)]
        given += [np.ones((1, graph.classes), np.float32)] if graph.classes else []
        with torch.no_grad():
            wanted = graph(*(torch.from_numpy(each) for each in given))
        first = (wanted if isinstance(wanted, Tensor) else wanted[0]).numpy()
        own = answer(*given)[0]
        difference = float(np.abs(own - first).max() / max(float(np.abs(first).max()), 1e-12))
        found.append(Checked(size, difference, float((own.argmax(1) == first.argmax(1)).mean())))
    if (worst := max(each.difference for each in found)) > TOLERANCE[form]:
        raise CheckpointError(
            f"{path}: its answers differ from the net's by {worst:.1e}, more than {TOLERANCE[form]:.0e}; do not use it"
        )
    return found


def open_torch(path: Path) -> tuple[Answer, dict[str, Any]]:
    """A file of `torch.export` that we wrote; one from elsewhere may run code when it is opened.

    Args:
        path: the file.
    """
    extra = {FACTS: ""}
    module = torch.export.load(path, extra_files=extra).module()

    def answer(*given: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        with torch.no_grad():
            found = module(*(torch.from_numpy(each) for each in given))
        return [each.numpy() for each in ([found] if isinstance(found, Tensor) else found)]

    return answer, json.loads(extra[FACTS])


def open_onnx(path: Path) -> tuple[Answer, dict[str, Any]]:
    """A file of ONNX, run by onnxruntime on the CPU.

    Args:
        path: the file.

    Raises:
        ConfigError: onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ConfigError("--check of ONNX needs onnxruntime; install frugalseg[export]") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]

    def answer(*given: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        return cast(list[NDArray[np.float32]], session.run(None, dict(zip(names, given, strict=True))))

    return answer, json.loads(session.get_modelmeta().custom_metadata_map[KEY])


# ---------------------------------------------------------------------- inside


def _example(graph: Graph, size: Size | None) -> tuple[Tensor, ...]:
    """Inputs that the graph is traced with: two images, since one alone would look like a constant."""
    step = graph.multiple
    height, width = size or ((96, 128) if step > 1 else (75, 91))
    if size is None and step > 1:
        height, width = (-(-side // step) * step for side in (height, width))
    image = torch.rand(2, 3, height, width) * 255
    return (image, torch.ones(2, graph.classes)) if graph.classes else (image,)


def _dynamic(graph: Graph, size: Size | None) -> tuple[dict[int, Any], ...]:
    """Which sides are left open."""
    image: dict[int, Any] = {0: Dim.DYNAMIC}
    if size is None:
        free = graph.multiple == 1
        image[2] = Dim.DYNAMIC if free else graph.multiple * Dim("rows", min=1, max=4096)
        image[3] = Dim.DYNAMIC if free else graph.multiple * Dim("columns", min=1, max=4096)
    return (image, {0: Dim.DYNAMIC}) if graph.classes else (image,)


def _program(graph: Graph, size: Size | None) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(graph, _example(graph, size), dynamic_shapes=_dynamic(graph, size))


def _torch(graph: Graph, facts: dict[str, Any], size: Size | None) -> bytes:
    stream = BytesIO()
    torch.export.save(_program(graph, size), stream, extra_files={FACTS: json.dumps(facts)})
    return stream.getvalue()


def _onnx(graph: Graph, facts: dict[str, Any], size: Size | None, opset: int) -> bytes:
    try:
        import onnxscript  # noqa: F401 - torch's exporter needs it
    except ImportError:
        raise ConfigError("--format onnx needs onnx and onnxscript; install frugalseg[export]") from None
    found: Any = torch.onnx.export(
        _program(graph, size),
        dynamo=True,
        opset_version=opset,
        input_names=["image", *(["tags"] if graph.classes else [])],
        output_names=list(graph.outputs),
        verbose=False,
    )
    found.model.metadata_props[KEY] = json.dumps(facts)
    return cast(bytes, found.model_proto.SerializeToString())


@contextmanager
def _told(form: str, size: Size | None) -> Iterator[None]:
    """Errors of torch's exporters in one line; their advice to developers is not shown."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except ConfigError:
        raise
    except Exception as error:  # whatever torch meets on its way
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        mend = "take another --opset or the other --format" if size else "fix the sides with --size HxW"
        raise ConfigError(f"--format {form}: torch cannot export this net so ({line}); {mend}") from error
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
