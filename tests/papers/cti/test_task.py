"""CTI's task: optimiser and schedule as Lightning drives them, initial values, ranks, infused maps, wrong settings."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from frugalseg.errors import ConfigError
from frugalseg.papers.cti import CTI
from frugalseg.papers.cti.memory import paired_tokens
from tests.papers.cti import naive
from tests.papers.cti.rules import apply_rule

CLASSES = 4
SMALL = {
    "dim": 12,
    "depth": 4,
    "heads": 3,
    "grid": 2,
    "infusion": 1,
    "weights": None,
    "memory_size": 2,
    "drop_path": 0.0,
}


def small(**settings):
    torch.manual_seed(0)
    return CTI(CLASSES + 1, **{**SMALL, **settings})


class Batches(torch.utils.data.Dataset):
    """Three batches of two images an epoch; every class occurs in each."""

    def __len__(self):
        return 3

    def __getitem__(self, index):
        views = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(index))
        return {
            "id": ["a", "b"],
            "image": views[0],
            "strong": views[1],
            "tags": torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]]),
        }


def fit(task, tmp_path, epochs, watch, before=False):
    """Train through Lightning; `watch` is called after every batch, or before."""
    from lightning.pytorch import Callback, Trainer

    class Watch(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if before:
                watch(trainer)

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if not before:
                watch(trainer)

    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=epochs, accelerator="cpu", callbacks=[Watch()], default_root_dir=tmp_path, **quiet)
    trainer.fit(task, DataLoader(Batches(), batch_size=None))


def rate(trainer):
    rates = {group["lr"] for group in trainer.optimizers[0].param_groups}
    assert len(rates) == 1
    return rates.pop()


def test_the_rate_changes_per_epoch(tmp_path):
    """Rise over two epochs from 1e-6, then the cosine of six epochs."""
    seen = []
    fit(small(lr=1e-4, warmup=2, min_lr=1e-5), tmp_path, 6, lambda trainer: seen.append(rate(trainer)), True)
    cosine = [1e-5 + 9e-5 * (1 + torch.cos(torch.tensor(torch.pi * e / 6)).item()) / 2 for e in range(6)]
    expected = [1e-6, 1e-6 + 99e-6 / 2, *cosine[2:]]
    assert seen == pytest.approx([value for value in expected for _ in range(3)], rel=1e-6)


def test_the_rate_changes_per_step(tmp_path):
    seen = []
    settings = {"lr": 1e-3, "warmup": 0, "min_lr": 0.0, "schedule": "step"}
    fit(small(**settings), tmp_path, 2, lambda trainer: seen.append(rate(trainer)), True)
    expected = [5e-4 * (1 + torch.cos(torch.tensor(torch.pi * step / 6)).item()) for step in range(6)]
    assert seen == pytest.approx(expected, abs=1e-9)


def test_what_is_decayed(tmp_path):
    found = []

    def watch(trainer):
        names = {id(p): name for name, p in trainer.lightning_module.net.named_parameters()}
        groups = trainer.optimizers[0].param_groups
        found.append({g["weight_decay"]: {names[id(p)] for p in g["params"]} for g in groups})

    fit(small(weight_decay=0.3), tmp_path, 1, watch)
    decayed, spared = found[0][0.3], found[0][0.0]
    assert {"bg_token", "pos_embed_cls", "pos_embed_pat", "head.weight", "blocks.0.mlp.fc1.weight"} <= decayed
    assert {"cls_token", "head.bias", "blocks.3.norm2.weight"} <= spared and not decayed & spared


def test_the_terms_begin_with_their_epoch(tmp_path):
    """Two epochs of three steps: the memory of two entries per class stays empty in the first and is full in the second."""
    seen = []

    def watch(trainer):
        terms = {k.removeprefix("train/loss_"): float(v) for k, v in trainer.callback_metrics.items()}
        entries = int(trainer.lightning_module.memory.count.min())
        seen.append((terms["background"] > 0, terms["intra"] > 0, terms["cross"] > 0, entries))

    fit(small(terms_from_epoch=1), tmp_path, 2, watch)
    assert seen[:3] == [(False, False, False, 0)] * 3
    assert seen[3:] == [(True, True, False, 1), (True, True, True, 2), (True, True, True, 3)]


def test_initial_values():
    """Blocks and tokens truncated-normal, as timm's; tokenizer and head PyTorch's own; the background token 0."""
    torch.manual_seed(0)
    net = CTI(21, weights=None).net
    for name, parameter in net.named_parameters():
        std = float(parameter.detach().std()) if parameter.numel() > 1000 else None
        if name.startswith("blocks.") and name.endswith("bias"):
            assert not parameter.any(), name
        elif name.startswith("blocks.") and "norm" not in name:
            assert std == pytest.approx(0.02, rel=0.05), name
        elif name.startswith(("tokenizer", "head")) and name.endswith("weight"):
            bound = parameter[0].numel() ** -0.5
            assert float(parameter.detach().abs().max()) == pytest.approx(bound, rel=0.01), name
            assert std == pytest.approx(bound / 3**0.5, rel=0.05), name
    assert not net.bg_token.any() and float(net.pos_embed_pat.detach().std()) == pytest.approx(0.02, rel=0.05)
    assert isinstance(net.head, nn.Conv2d)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("cross", ["memory", "paired"])
def test_every_rank_infuses_what_one_process_would(rank, cross):
    """Ranks are played: `all_gather` gives what the other one holds too."""
    torch.manual_seed(3)
    tokens, tags = torch.randn(4, CLASSES, 12), (torch.rand(4, CLASSES) < 0.6).float()
    alone, mine = small(cross=cross), small(cross=cross)
    part = slice(2 * rank, 2 * rank + 2)
    mine._trainer = SimpleNamespace(world_size=2, global_rank=rank)
    mine.all_gather = lambda own: (tokens if own.ndim == 3 else tags).view(2, 2, *own.shape[1:])
    found = mine._cross_tokens(tokens[part], tags[part], show=True)
    expected = alone._cross_tokens(tokens, tags, show=True)[part]
    assert torch.equal(found, expected)
    if cross == "paired":
        assert torch.equal(found, paired_tokens(tokens, tags)[part])
    assert all(torch.equal(a, b) for a, b in zip(alone.memory.buffers(), mine.memory.buffers(), strict=True))


def test_infused_maps_are_those_of_a_plain_pass_with_prototypes():
    """Present classes take their prototype, absent ones keep their own token, as PX in training."""
    task = small().double().eval()
    apply_rule(task.net)
    task.memory.count.fill_(2)
    task.memory.values.normal_(generator=torch.Generator().manual_seed(1))
    slow = naive.NaiveCTI(CLASSES + 1, 12, 3, depth=4, grid=2, infusion=1, last=2).double()
    slow.load_state_dict(task.net.state_dict())
    image = torch.randn(1, 3, 32, 48, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    pair, tags = torch.cat([image, image.flip(-1)]), torch.tensor([1.0, 0, 0, 1], dtype=torch.float64)
    with torch.no_grad():
        found = task.seeds([pair], tags, (32, 48), parts=True)["infused"]
        own = slow(pair).tokens_after_block[1][:, 1:]
        mean = task.memory.values.mean(dim=1).expand(2, -1, -1)
        maps = slow(pair, torch.where(tags.bool()[None, :, None], mean, own)).r[:, [0, 1, 4]]
        up = nn.functional.interpolate(maps, size=(32, 48), mode="bilinear")
    torch.testing.assert_close(found, naive.max_norm(up[0] + up[1].flip(-1)), rtol=0, atol=1e-10)


def test_seeds_are_float32_under_bf16():
    """Maps, their products and their refinement; what bf16 does to the net itself is left."""
    task = small(dim=48, heads=3).eval()
    apply_rule(task.net)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    pair, tags = torch.cat([image, image.flip(-1)]), torch.ones(CLASSES)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = task.seeds([pair], tags, (64, 64), parts=True)
        passed = task.net(pair, None, 0, 0)
    assert {maps.dtype for name, maps in found.items() if name != "keys"} == {torch.float32}
    # a product in bf16 would keep eight bits: many equal values
    refined = (passed.scores.maps * passed.rows).flatten(2) @ passed.patches.transpose(1, 2)
    full = nn.functional.interpolate(refined.view_as(passed.rows), size=(64, 64), mode="bilinear")
    torch.testing.assert_close(found["q"], naive.max_norm(full[0] + full[1].flip(-1)), rtol=0, atol=1e-4)


WRONG = [
    ("lr", 0.0), ("memory_size", 0), ("grid", 0), ("background_weight", -0.1), ("intra_weight", -1.0),
    ("cross_weight", -1.0), ("max_pixels", 0), ("drop_path", 1.0), ("warmup", -1), ("terms_from_epoch", -1),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), WRONG)
def test_settings_that_make_no_sense_are_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=rf"model\.init_args\.{key} is {value}: set it to"):
        small(**{key: value})


@pytest.mark.parametrize("value", [0, -1, 5])
def test_there_are_as_many_fused_blocks_as_blocks(value):
    with pytest.raises(ValueError, match="fused_blocks must be 1 to 4"):
        small(fused_blocks=value)


def test_a_schedule_without_a_length_is_refused():
    task = small(schedule="step")
    task._trainer = SimpleNamespace(max_epochs=-1, estimated_stepping_batches=float("inf"))
    with pytest.raises(ConfigError, match=r"its length is not known; set trainer\.max_steps"):
        task.configure_optimizers()
