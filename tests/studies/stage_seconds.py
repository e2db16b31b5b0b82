"""`python -m tests.studies.stage_seconds`: seconds per image of every stage of SFC's chain, and of PSA, at full size.

The budget of a data set follows: seconds per image times 10,582 images, times epochs where a net is trained. Nets, crops
and scales are those of the experiment files; weights are random, which changes no time. One thread, float32, the median
of `--rounds` calls after one that does not count; a row ends once it has taken `--most` seconds, and if the first call
takes that long, it counts. On a CPU seconds are those of the process, which other programs disturb less than the
clock's; on a GPU the clock's.

- A training row is forward, backward and optimiser step per FRESH image (SFC's bank adds one image to four), in smaller
  batches than the files'. Reading and augmenting is left out: the loader's processes do it meanwhile.
- A prediction row is one image of 375 x 500 pixels with all scales and mirror images of its file, from tensors to maps,
  without reading and writing. The segmenter's CRF has a row of its own, with 3 classes: random weights would make all
  21 likely, real ones make few.
- `crf`, `walk` and `evaluate` read and write files as the verbs do, for a genuine photo of 375 x 500 pixels (noise where
  there is none) with 2 classes and the background.

Prints a table in Markdown and writes the same as JSON to `--out`. `--only` takes beginnings of row names.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor

from frugalseg.data.base import Sample
from frugalseg.data.io import read_image
from frugalseg.data.voc import NAMES
from frugalseg.ops.crf import Kernels
from frugalseg.optim import trainable
from frugalseg.run import write_json
from frugalseg.stages.deeplab.inference import Inference, refine
from frugalseg.stages.deeplab.losses import scales_logits, scales_loss
from frugalseg.stages.psa.losses import affinity_loss
from tests.studies.stage_files import EXPERIMENTS, SIZE, Work, blobs, evaluating, labelling, make_inputs

SFC, CTI, IMAGES = "sfc/voc/{}.yaml", "cti/voc/{}.yaml", 10582


class Row(NamedTuple):
    """A stage; `build` makes what is timed, with a photo and a scratch folder at hand."""

    name: str
    what: str
    build: Callable[[torch.device, Sample, Path], Work]
    images: int = 1


def config(name: str, *keys: str) -> Any:
    found = yaml.safe_load((EXPERIMENTS / name).read_text())
    for key in keys:
        found = found[key]
    return found


def task_of(device: torch.device, *names: str) -> Any:
    """The task of an experiment and its overlays, without weights and CRF."""
    models = [config(name).get("model", {}) for name in names]
    options = {key: value for model in models for key, value in model.get("init_args", {}).items()}
    if "inference" in options:
        kernels = Kernels(**options["inference"]["kernels"])
        options["inference"] = Inference(**{**options["inference"], "kernels": kernels, "crf": False})
    module, _, kind = models[0]["class_path"].rpartition(".")
    return getattr(import_module(module), kind)(**{**options, "weights": None}).to(device)


def tags(images: int, device: torch.device) -> Tensor:
    """Aeroplane and person in each image."""
    found = torch.zeros(images, len(NAMES) - 1, device=device)
    found[:, [0, 14]] = 1
    return found


def sfc_loss(task: Any, image: Tensor, mask: Tensor) -> Tensor:
    boxes = torch.tensor([[0, 0, *image.shape[-2:]]] * len(image), device=image.device)
    return task.losses(image, tags(len(image), image.device), boxes).total


def irn_loss(task: Any, image: Tensor, mask: Tensor) -> Tensor:
    return task.losses(image, mask).total


def psa_loss(task: Any, image: Tensor, mask: Tensor) -> Tensor:
    return affinity_loss(task.net(image), task.pairs(mask)).total


def deeplab_loss(task: Any, image: Tensor, mask: Tensor) -> Tensor:
    logits = scales_logits(task.net, image, task.hparams["train_scales"])
    return scales_loss(logits, mask, task.hparams["loss_at"] == "mask")


def training(file: str, batch: int, loss: Callable[[Any, Tensor, Tensor], Tensor]) -> Callable[..., Work]:
    """One step on noise with blocks of labels."""

    def build(device: torch.device, photo: Sample, folder: Path) -> Work:
        task, crop = task_of(device, file).train(), config(file, "data", "init_args", "recipe", "init_args", "crop")
        image = torch.randn(batch, 3, crop, crop, device=device)
        blocks = torch.tensor([0, 1, 15, 255])[torch.randint(4, (batch, 1, 9, 9))].float()
        mask = torch.nn.functional.interpolate(blocks, (crop, crop)).long()[:, 0].to(device)
        optimiser = torch.optim.SGD(trainable(task.parameters()), lr=1e-9, momentum=0.9)

        def step() -> None:
            optimiser.zero_grad()
            loss(task, image, mask).backward()
            optimiser.step()

        return step

    return build


def predicting(*files: str) -> Callable[..., Work]:
    """One image as the last file says."""

    def build(device: torch.device, photo: Sample, folder: Path) -> Work:
        task = task_of(device, *files).eval()
        scales = config(files[-1], "data", "init_args", "predict_recipe", "init_args", "scales")
        images = [torch.randn(2, 3, *(round(scale * side) for side in SIZE), device=device) for scale in scales]
        batch = {"id": ["noise"], "images": images, "size": SIZE, "tags": tags(1, device)}
        return torch.no_grad()(lambda: task.predict_step(batch, 0))

    return build


def segment_crf(device: torch.device, photo: Sample, folder: Path) -> Work:
    settings = task_of(torch.device("cpu"), SFC.format("segment"), SFC.format("predict")).inference
    pixels, shares = torch.tensor(read_image(photo.image), device=device), blobs().to(device).softmax(dim=0)
    return lambda: refine(pixels, shares, settings)


def _rows() -> Iterator[Row]:
    def sfc(*names: str) -> list[str]:
        return [SFC.format(name) for name in names]

    fit, look = training, predicting
    yield Row("sfc.train", "SFC classifier, crop 512 and half of it", fit(*sfc("classify"), 5, sfc_loss), 4)
    yield Row("sfc.cam", "SFC maps, scales 1, 0.5, 1.5, 2, mirror", look(*sfc("classify", "cam")))
    yield Row("crf", "`frugalseg crf`, both kinds, 12 iterations", labelling("crf", *sfc("seeds")))
    yield Row("irn.train", "IRN, crop 512", fit(*sfc("irn"), 2, irn_loss), 2)
    yield Row("irn.edges", "IRN edges, mirror", look(*sfc("irn", "edges")))
    yield Row("walk", "`frugalseg walk`, both kinds, 94 x 125 cells", labelling("walk", *sfc("labels")))
    yield Row("psa.train", "PSA on ResNet-38, crop 448", fit(CTI.format("psa"), 2, psa_loss), 2)
    yield Row("psa.affinity", "PSA affinities", look(CTI.format("psa"), CTI.format("affinity")))
    yield Row("deeplab.train", "DeepLab V2 ResNet-101, crop 321, 3 scales", fit(*sfc("segment"), 2, deeplab_loss), 2)
    yield Row("deeplab.predict", "DeepLab V2 ResNet-101, scales 1, 0.5, 0.75", look(*sfc("segment", "predict")))
    yield Row("deeplab.crf", "CRF of its masks, 3 classes, 10 iterations", segment_crf)
    yield Row("r38.train", "LargeFOV ResNet-38, crop 448", fit(*sfc("segment-r38"), 2, deeplab_loss), 2)
    yield Row("r38.predict", "LargeFOV ResNet-38, 6 scales, mirror", look(*sfc("segment-r38", "predict-r38")))
    yield Row("evaluate", "`frugalseg evaluate`, all rules, 3 sweeps, 4 kinds of masks", evaluating)


def seconds(work: Work, device: torch.device, rounds: int, most: float) -> Iterator[float]:
    """Times of the calls that count."""
    spent, clock = 0.0, time.perf_counter if device.type == "cuda" else time.process_time
    for number in range(rounds + 1):
        began = clock()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        spent += (took := clock() - began)
        if number or spent > most:
            yield took
        if spent > most:
            return


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.studies.stage_seconds", description=__doc__)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"), help="cpu or cuda")
    parser.add_argument("--only", nargs="*", default=[""], help="beginnings of row names")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--most", type=float, default=200.0, help="seconds after which a row ends")
    parser.add_argument("--out", type=Path, default=Path("runs/stage_seconds.json"))
    options = parser.parse_args(argv)
    device, found = options.device, []
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "one CPU thread"
    print(f"| row | what ({name}) | seconds per image | hours for {IMAGES:,} |\n|---|---|---|---|", flush=True)
    with TemporaryDirectory() as scratch:
        photo = make_inputs(Path(scratch))
        for row in (row for row in _rows() if row.name.startswith(tuple(options.only))):
            times = list(seconds(row.build(device, photo, Path(scratch)), device, options.rounds, options.most))
            each = median(times) / row.images
            found.append({"id": row.name, "what": row.what, "seconds": each, "images": row.images, "calls": times})
            print(f"| {row.name} | {row.what} | {each:.3g} | {each * IMAGES / 3600:.3g} |", flush=True)
    write_json(options.out, {"machine": {"device": name, "torch": torch.__version__, "photo": photo.id}, "rows": found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
