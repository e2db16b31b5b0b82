"""Verbs that need no Trainer: one short file each, with `run(argv) -> int`.

`VERBS` maps the verb to one line of help; the module of the same name is imported when the verb is used.
"""

VERBS = {
    "cache": "work out frozen features of images once, for probes of protocol L-cached",
    "crf": "labels from class maps with a dense CRF: after it, seed labels for edges, PSA's",
    "data": "check a data set on disk: `frugalseg data check voc --root ROOT`",
    "episodes": "write the few-shot episodes that evaluation runs to a file that others can run",
    "evaluate": "score a folder of class maps against masks",
    "miniature": "write a small synthetic world in a benchmark's official layout",
    "package": "a pre-trained backbone as a folder for others: safetensors, settings, a model card",
    "pictures": "draw what features see: principal components, clusters, matched points, nearest neighbours",
    "report": "print the tables of finished runs and their mean over seeds",
    "show": "draw a grid of a data module's samples, masks and augmentations",
    "walk": "labels from class maps and pixel affinities by a random walk",
}
