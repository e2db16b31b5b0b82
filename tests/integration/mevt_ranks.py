"""Short pretrainings on one rank or two, for `test_mevt_ddp`; `python -m tests.integration.mevt_ranks OUT CASE...` is two.

Two ranks share the images of what is one rank's batch, as `data.sampler.TrainSampler` deals them out.
"""

import sys
from pathlib import Path

import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from frugalseg.papers.mevt import Pretrain
from tests.papers.mevt.test_step import views

IMAGES, STEPS = 4, 3
HEADS = {
    "global_hidden": [16], "prototype_hidden": [16], "pixel_hidden": [16], "outputs": 8, "pixel_outputs": 8,
    "global_prototypes": 12, "dense_prototypes": 40,
}  # fmt: skip
RULE = {"weights": [0.5, 1.0, 1.0], "sides": [4, 3], "eps": 0.05, "queue": 300}
MASK = {"mask_token": True}
CASES = {
    # 40 prototypes ask for 400 points, and there are less than 200: the queue is in use
    "all": {"rule": {**RULE, "masked": 0.7, "mask_ratio": [0.4, 0.6], "region": 0.5}, "changes": MASK},
    "float32": {"rule": {**RULE, "masked": 0.7, "region": 0.5}, "changes": MASK, "precision": "32-true"},
    "thinned": {"rule": {**RULE, "most_points": 40, "pixel_points": 30}},
    # one rank lacks points, so it alone could take all that it has
    "thinned on one rank": {"rule": {**RULE, "weights": [0.0, 1.0, 0.0], "most_points": 80}},
    "enough points": {"rule": RULE, "heads": {"dense_prototypes": 10}},
    "dense": {"rule": {**RULE, "weights": [0.0, 1.0, 1.0]}},
    "dense without decoder": {"rule": {**RULE, "weights": [0.0, 1.0, 1.0]}, "changes": {"decoder": False}},
    "dense without context": {"rule": {**RULE, "weights": [0.0, 0.0, 1.0]}, "changes": {"context": False}},
    "prototypes, stride 8": {"rule": {**RULE, "weights": [0.0, 1.0, 0.0]}, "changes": {"output_stride": 8}},
    "masked alone": {"rule": {**RULE, "weights": [0, 0, 0], "masked": 1.0}, "changes": MASK},
    "region alone": {"rule": {**RULE, "weights": [0, 0, 0], "region": 1.0}},
    "dino": {"method": "dino"},
    "densecl": {"method": "densecl", "rule": {"grid": 4, "queue": 10}, "local": 0},
    "pixpro": {"method": "pixpro", "rule": {"grid": 4}, "local": 0},
    "pixpro without decoder": {"method": "pixpro", "rule": {"grid": 4}, "local": 0, "changes": {"decoder": False}},
    "vit": {"preset": "vit_tiny_patch16_224", "changes": {"depth": 2, "embed_dim": 24}, "rule": RULE},
    # its BatchNorms see their own rank's images: two ranks are not one
    "resnet": {"preset": "resnet10t", "rule": RULE},
    "resnet, dense": {"preset": "resnet10t", "rule": {**RULE, "weights": [0.0, 1.0, 1.0]}},
    # a net that could take masks, and a method that draws none
    "idle mask token": {"rule": RULE, "changes": MASK},
}


class Noted(Pretrain):
    """Keeps the terms and gradients of all steps."""

    def on_fit_start(self):
        self.notes = {"losses": [], "gradients": [], "ids": []}

    def on_before_optimizer_step(self, optimizer):
        super().on_before_optimizer_step(optimizer)
        self.notes["gradients"].append(
            {n: p.grad.clone() for n, p in self.student.named_parameters() if p.grad is not None}
        )

    def on_train_batch_end(self, outputs, batch, batch_idx):
        super().on_train_batch_end(outputs, batch, batch_idx)
        told = {k: float(v) for k, v in self.trainer.callback_metrics.items() if "loss" in k}
        self.notes["losses"].append(told)
        self.notes["ids"].append(list(batch["id"]))


def batches(local, ranks, rank):
    """This rank's share of every batch; the second image of the first one has two views that share nothing."""
    mine, found = slice(rank * IMAGES // ranks, (rank + 1) * IMAGES // ranks), []
    for step in range(STEPS):
        batch = views(IMAGES, local, seed=step)
        batch["box"][1, :2] = torch.tensor([[0, 0, 40, 40], [41, 41, 90, 90]])
        found.append({key: value[mine] for key, value in batch.items()})
    return DataLoader(found, batch_size=None)


def for_one(rule, ranks):
    """The rule with which one rank does what several would (mevt.md c.8): points are counted per rank."""
    if "sides" not in rule or ranks > 1:
        return rule
    points = {key: 2 * rule.get(key, default) for key, default in (("most_points", 32768), ("pixel_points", 4096))}
    return {**rule, **points, "images_per_group": IMAGES // 2}


def fit(case, ranks):
    """Train; what was noted, and the state in the end, of this rank."""
    given = CASES[case]
    torch.manual_seed(0)
    preset, changes = given.get("preset", "mevt_tiny"), dict(given.get("changes", {}))
    if preset.startswith("mevt"):
        changes |= {"drop_path": 0.0}
    task = Noted(
        preset=preset, method=given.get("method", "mevt"), changes=changes, heads={**HEADS, **given.get("heads", {})},
        rule=for_one(given.get("rule", {}), ranks), lr=1e-2, momentum=0.9,
    )  # fmt: skip
    trainer = Trainer(
        accelerator="cpu", devices=ranks, strategy="ddp" if ranks > 1 else "auto", max_steps=STEPS, max_epochs=1,
        precision=given.get("precision", "64-true"), use_distributed_sampler=False, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(task, batches(given.get("local", 1), ranks, trainer.global_rank))
    return {**task.notes, "state": task.state_dict(), "rank": trainer.global_rank}


def main(words):
    """Run cases on two ranks; each rank writes `OUT/<case>-<rank>.pt`."""
    torch.set_num_threads(1)
    for case in words[1:]:
        found = fit(case, 2)
        torch.save(found, Path(words[0]) / f"{case}-{found['rank']}.pt")


if __name__ == "__main__":
    main(sys.argv[1:])
