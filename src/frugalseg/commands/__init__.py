"""Verbs that need no Trainer: one short file each, with `run(argv) -> int`.

`VERBS` maps the verb to one line of help; the module of the same name is imported when the verb is used.
"""

VERBS = {
    "cache": "work out frozen features of images once, for probes of protocol L-cached",
    "claims": "what finished runs say of the papers' claims: effects, intervals, verdicts",
    "convert": "checkpoints that authors released as ours, and ours under their names",
    "crf": "labels from class maps with a dense CRF: after it, seed labels for edges, PSA's",
    "dashboard": "a W&B workspace and a report for each paper, or their definition as a file",
    "data": "check a data set on disk: `frugalseg data check voc --root ROOT`",
    "demo": "the table and the picture of `make demo`",
    "episodes": "write the few-shot episodes that evaluation runs to a file that others can run",
    "evaluate": "score a folder of class maps against masks",
    "export": "a trained net as one file for other programs: torch.export or ONNX",
    "follow": "run a command that makes many stages, and show how far they are",
    "miniature": "write a small synthetic world in a benchmark's official layout",
    "package": "a trained net as a folder for others: safetensors, settings, a model card",
    "pictures": "draw what features see: principal components, clusters, matched points, nearest neighbours",
    "report": "print the tables of finished runs and their mean over seeds",
    "results": "write the results tables of pages again from results/*.json, or check that they agree",
    "scale": "write few-shot episodes whose support and query show objects of unequal size",
    "segment": "masks, overlays and areas of images or folders, large TIFFs included, by a trained net",
    "shapes": "mean IoU of thin and of small classes of a finished probe, chosen by the training masks",
    "show": "draw a grid of a data module's samples, masks and augmentations",
    "sync": "send what offline runs recorded to W&B",
    "walk": "labels from class maps and pixel affinities by a random walk",
}
SHARED = frozenset({"cache", "crf", "data", "evaluate", "walk"})
"""Verbs whose work is shared out by ranks that torchrun or srun has started; of the others rank 0 does all."""
