"""All rows, and the function that measures each group of them.

A function `f(quick) -> {id: Measured}` is named as `module:f` and imported only when its rows are wanted, so that a row
whose imports fail stops no other. A new area of the suite adds a module and its groups here.
"""

from tests.benchmark.measure import Group, Row
from tests.benchmark.registry_steps import STEP_GROUPS

SIZES = "forward and backward, N=2, K=21, D=768, 32x32"
PIL = "Pillow and torchvision (RandomCrop with padding, ToTensor, Normalize)"
SCALED = "Pillow and torchvision (antialiased bicubic resize, flip, pad, crop, ToTensor, Normalize)"
DINO = "Pillow and torchvision (crops, flip, jitter, grey, blur, solarise, ToTensor, Normalize)"
COCO = "an index of COCO 2014's size (82,081 of 82,783 images, 600,000 annotations, generated)"
SHOT = "Pillow and torchvision (resize, rotate, flips, pad, crop, ToTensor, Normalize)"
PAIR = "Pillow, torchvision and timm's RandAugment (RandomResizedCrop, flip, ToTensor, Normalize)"
PLAIN = "Pillow and torchvision (resize, ToTensor, Normalize, flip)"
CRF = "dense CRF of a genuine 375x500 photo, 10 iterations, set-up included"
CTI = "CTI step, DeiT-S, 20 classes, batch 2 of two views, all terms, clipping and AdamW,"
DSMF = "DSMF-Net step, frozen ResNet-50, 2 one-shot episodes of 256x256, all terms, clipping and SGD"
KEPT = "speed-up of five base seeds, 5 shots, 128x128, by prototypes and foreground columns that are kept"
PRIOR = "prior map of a 60x60 grid, D=2048, every place foreground"
MEVT = "MEVT step, mevt_tiny, 16 images of 2 x 64 and 2 x 32, all terms, clipping, AdamW and moving average"
CROPS = "2 x 224 + 8 x 96 pixels"
DINO_S = "DINO's loss on ViT-S/16, same task, heads and crops"
PROBE = "linear probe L-cached of mevt_s, 448 pixels, grid 100, 10 epochs"
RANKS = "by two ranks on two cores"
STEP = "SFC step, ResNet-50, 21 classes, 2 fresh + 4 bank images of 256x256, two scales, clipping and SGD"

GROUPS = [
    Group(
        "tests.benchmark.prototypes:speed_up",
        Row("sfc.prototypes_over_naive", f"speed-up of prototype maps over broadcasting, {SIZES}", better="higher"),
    ),
    Group(
        "tests.benchmark.prototypes:memory",
        Row("sfc.prototypes_memory_over_naive", f"peak memory of prototype maps over broadcasting, {SIZES}"),
    ),
    Group(
        "tests.benchmark.data:tags_over_pil",
        Row("data.tags_over_pil", f"images/s of Tags(crop=512) over {PIL}", better="higher", bound=1.3),
        Row("data.tags_images_per_s", "training items of Tags(crop=512) per CPU second", "images/s", "higher"),
        Row("data.pil_images_per_s", f"the same by {PIL}", "images/s", "higher"),
    ),
    Group(
        "tests.benchmark.data:segment_over_pil",
        Row("data.segment_over_pil", f"images/s of Segment(crop=512, scale) over {SCALED}", better="higher", bound=1.3),
        Row("data.segment_images_per_s", "training items of Segment(crop=512) per CPU second", "images/s", "higher"),
        Row("data.segment_pil_images_per_s", f"the same by {SCALED}", "images/s", "higher"),
    ),
    Group(
        "tests.benchmark.views:views_over_pil",
        Row("data.views_over_pil", f"images/s of Views (2 x 224, 8 x 96) over {DINO}", better="higher", bound=1.3),
        Row("data.views_for_device_over_pil", "the same, colour changes left to the device", better="higher"),
        Row("data.views_images_per_s", "training items of Views per CPU second", "images/s", "higher"),
        Row("data.pil_views_images_per_s", f"the same by {DINO}", "images/s", "higher"),
    ),
    Group(
        "tests.benchmark.recipes:episodes_over_pil",
        Row("data.episodes_over_pil", f"images/s of 1-shot Episodes(size=256), training, over {SHOT}", better="higher"),
        Row("data.episodes_images_per_s", "images of training episodes per CPU second", "images/s", "higher"),
    ),
    Group(
        "tests.benchmark.recipes:two_views_over_pil",
        Row("data.two_views_over_pil", f"images/s of Tags(crop=224, views=2), CTI's, over {PAIR}", better="higher"),
    ),
    Group(
        "tests.benchmark.recipes:multiscale_over_pil",
        Row(
            "data.multiscale_over_pil", f"images/s of MultiScale, four scales and mirror, over {PLAIN}", better="higher"
        ),
        Row(
            "data.multiscale_images_per_s",
            "images at four scales, with mirror images, per CPU second",
            "images/s",
            "higher",
        ),
    ),
    Group(
        "tests.benchmark.decoding:decode_over_pil",
        Row("data.decode_over_pil", "images/s of read_image over Pillow, VOC JPEGs", better="higher", bound=1.0),
        Row("data.decode_images_per_s", "VOC JPEGs decoded per CPU second", "images/s", "higher"),
        Row("data.decode_png_over_pil", "the same ratio, RGB PNGs of 2048x1024", better="higher", bound=1.0),
        Row("data.decode_png_images_per_s", "such PNGs decoded per CPU second", "images/s", "higher"),
    ),
    Group(
        "tests.benchmark.decoding:scaled_over_whole",
        Row(
            "data.scaled_over_whole",
            "images/s of Views (2 x 64, 4 x 32) with scaled decoding over without, VOC",
            better="higher",
        ),
        Row("data.scaled_over_whole_frames", "the same, Views (2 x 224, 8 x 96) of 2048x1024 JPEGs", better="higher"),
    ),
    Group(
        "tests.benchmark.decoding:cached_over_uncached",
        Row(
            "data.cached_over_uncached",
            "images/s of Tags(crop=512) with data.cache over without, VOC JPEGs",
            better="higher",
            bound=1.0,
        ),
        Row("data.cached_over_uncached_segment", "the same, Segment(crop=512, scale)", better="higher", bound=1.0),
        Row(
            "data.cached_over_uncached_png", "the same, Segment(crop=512) of 2048x1024 PNGs", better="higher", bound=1.0
        ),
    ),
    Group(
        "tests.benchmark.decoding:item_shares",
        Row("data.decode_share_tags", "decoding in the CPU time of a training batch of Tags(crop=512), VOC", "%"),
        Row("data.decode_share_segment", "the same, Segment(crop=512, scale), image and mask", "%"),
        Row("data.decode_share_views", "the same, Views (2 x 224, 8 x 96), colours changed on the CPU", "%"),
    ),
    Group(
        "tests.benchmark.decoding:workers",
        Row(
            "data.loader_images_per_s_0",
            "Tags(crop=512) through the loader, no worker, wall time",
            "images/s",
            "higher",
        ),
        Row("data.loader_images_per_s_1", "the same, one worker", "images/s", "higher"),
        Row("data.loader_images_per_s_2", "the same, two workers", "images/s", "higher"),
        Row("data.two_workers_over_none", "images/s with two workers over none", better="higher"),
    ),
    Group(
        "tests.benchmark.decoding:loading_share",
        Row("data.loading_share", f"waiting for data in the wall time of the {STEP}, one worker", "%"),
        Row("data.loading_share_no_worker", "the same, no worker", "%"),
    ),
    Group(
        "tests.benchmark.decoding:gpu",
        Row("data.gpu_loading_share", f"waiting for data in the wall time, on a GPU, of the {STEP}, one worker", "%"),
        Row("data.gpu_loading_share_no_worker", "the same, no worker", "%"),
    ),
    Group(
        "tests.benchmark.tiling:tiling",
        Row("data.tiling", "kept 256-pixel iSAID tiles per CPU second", "tiles/s", "higher"),
        Row(
            "data.tiling_over_pil",
            "tiles/s (PNG level 2) over plain Pillow and NumPy (its default, 6)",
            better="higher",
        ),
    ),
    Group(
        "tests.benchmark.coco:index_coco",
        Row("data.index_coco", f"start of {COCO}, from the cached index", "s", bound=5),
        Row(
            "data.index_coco_memory",
            "peak memory of that process, which imports no torch",
            "MB",
            bound=500,
        ),
        Row("data.index_coco_first", "the first start, which reads the json and writes the index", "s"),
    ),
    Group(
        "tests.benchmark.data:episodes",
        Row(
            "data.episodes", "training episodes of iSAID-5i drawn, 5 shots, no file read", "episodes/s", "higher", 2000
        ),
        Row(
            "data.test_episodes", "test episodes of iSAID-5i drawn, 5 shots, no file read", "episodes/s", "higher", 2000
        ),
    ),
    Group(
        "tests.benchmark.sfc:step_over_bare",
        Row("sfc.step_over_bare", f"{STEP}, over forward and backward of the bare network", bound=1.10),
        Row("sfc.step_over_bare_with_optimiser", f"{STEP}, over the bare network with clipping and SGD"),
    ),
    Group(
        "tests.benchmark.sfc:channels_last",
        Row("sfc.channels_last_over_contiguous", f"{STEP}, channels-last over contiguous"),
    ),
    Group(
        "tests.benchmark.sfc:cam_over_bare",
        Row("sfc.cam_over_bare", "maps of a 375x500 image, 4 scales and flip, over bare forwards", bound=1.10),
    ),
    Group(
        "tests.benchmark.cti:step_over_four",
        Row("cti.step_over_four", f"{CTI} 224, over four plain passes of its blocks, forward and backward", bound=1.0),
        Row("cti.step_over_naive", f"{CTI} 224, over the naive step of the tests"),
    ),
    Group(
        "tests.benchmark.cti:step448_over_naive",
        Row("cti.step448_over_naive", f"{CTI} 448, over the naive step of the tests, plain allocation", bound=0.72),
        Row("cti.step448_over_naive_kept", "the same with freed memory kept, as make sets it"),
    ),
    Group(
        "tests.benchmark.cti:step448_memory",
        Row("cti.step448_memory", f"peak memory of {CTI} 448", "MB"),
        Row("cti.step448_naive_memory", "peak memory of the naive step, 448", "MB"),
    ),
    Group(
        "tests.benchmark.cti:seed_over_two",
        Row("cti.seed_over_two", "seeds of a 375x500 image, with flip, over two plain forward passes", bound=1.2),
    ),
    Group(
        "tests.benchmark.cti:gpu",
        Row("cti.gpu_images_per_s", "CTI step on a GPU, bf16, batch 64, 224", "images/s", "higher"),
        Row("cti.gpu_block_share", "time of the blocks alone in that step", "%", "higher"),
        Row("cti.gpu_peak_memory", "peak memory of that step", "MB"),
    ),
    Group(
        "tests.benchmark.dsmf:step_over_backbone",
        Row("dsmf.step_over_backbone", f"{DSMF}, over all four stages of the same images, no gradient", bound=1.45),
        Row(
            "dsmf.step_over_needed",
            f"{DSMF}, over the frozen passes that it needs (queries, three stages of supports,"
            " the last one of their masked third)",
        ),
    ),
    Group(
        "tests.benchmark.dsmf:cache_over_cold",
        Row("dsmf.cache_over_cold", f"{KEPT}, all supports kept before", better="higher", bound=3),
        Row("dsmf.cache_filling_over_cold", f"{KEPT}, nothing kept before the first episode", better="higher"),
    ),
    Group(
        "tests.benchmark.dsmf:pyg_over_einsum",
        Row(
            "dsmf.pyg_over_einsum",
            "graph unit by torch_geometric over einsum, forward and backward, 4 maps of 64x64, d=256, n=64, T=128",
        ),
    ),
    Group(
        "tests.benchmark.dsmf:prior_chunked_over_full",
        Row("dsmf.prior_chunked_over_full_1", f"{PRIOR}, 1 shot, 400 places at a time over all at once"),
        Row("dsmf.prior_chunked_over_full_5", f"{PRIOR}, 5 shots, the same"),
    ),
    Group(
        "tests.benchmark.dsmf:prior_memory",
        Row("dsmf.prior_full_memory_1", f"memory that it adds to a process: {PRIOR}, 1 shot, all at once", "MB"),
        Row("dsmf.prior_chunked_memory_1", "the same, 400 places at a time", "MB"),
        Row("dsmf.prior_full_memory_5", f"memory that it adds to a process: {PRIOR}, 5 shots, all at once", "MB"),
        Row("dsmf.prior_chunked_memory_5", "the same, 400 places at a time", "MB"),
    ),
    Group(
        "tests.benchmark.mevt:step_over_bare",
        Row("mevt.step_over_bare", f"{MEVT}, over forward and backward of both nets with heads", bound=1.25),
        Row(
            "mevt.step_over_bare_with_optimiser", "the same, over the bare nets with all that follows the backward pass"
        ),
    ),
    Group(
        "tests.benchmark.mevt:shares",
        Row("mevt.share_sinkhorn", "time of Sinkhorn on that step's points", "%"),
        Row("mevt.share_sampling", "time of point sampling in that step, forward and backward", "%"),
        Row("mevt.share_infonce", "time of InfoNCE in that step, forward and backward", "%"),
    ),
    Group(
        "tests.benchmark.mevt:losses_over_naive",
        Row("mevt.sinkhorn_over_naive", "speed-up of Sinkhorn over loops, that step's points", better="higher"),
        Row("mevt.infonce_over_naive", "speed-up of InfoNCE, forward, over loops, that step's points", better="higher"),
    ),
    Group(
        "tests.benchmark.mevt_speed:images_per_second",
        Row("mevt.images_per_second_mevt_s", f"MEVT step, mevt_s, {CROPS}, per CPU second", "images/s", "higher"),
        Row("mevt.images_per_second_dino_vit_s16", f"{DINO_S}, per CPU second", "images/s", "higher"),
        Row("mevt.mevt_s_over_dino", "images/s of the first over the second", better="higher"),
    ),
    Group(
        "tests.benchmark.mevt_probe:cached_over_uncached",
        Row(
            "mevt.probe_cached_over_uncached", f"speed-up of the {PROBE}, cache filled first", better="higher", bound=5
        ),
        Row("mevt.probe_ready_cache_over_uncached", "the same, cache there already", better="higher"),
    ),
    Group(
        "tests.benchmark.mevt_speed:gpu",
        Row("mevt.gpu_images_per_second_mevt_s", f"MEVT step on a GPU, bf16, mevt_s, {CROPS}", "images/s", "higher"),
        Row("mevt.gpu_images_per_second_dino_vit_s16", f"{DINO_S}, on that GPU", "images/s", "higher"),
        Row("mevt.gpu_mevt_s_over_dino", "images/s of the first over the second", better="higher"),
        Row("mevt.gpu_peak_memory_mevt_s", "peak memory of that MEVT step", "MB"),
        Row("mevt.gpu_peak_memory_dino_vit_s16", "peak memory of that step of DINO", "MB"),
        Row("mevt.gpu_matrix_share_mevt_s", "MEVT's operations per second over those of bf16 products", "%", "higher"),
        Row("mevt.gpu_matrix_share_dino_vit_s16", "the same of DINO's step", "%", "higher"),
    ),
    Group(
        "tests.benchmark.evaluate:sweep_over_single",
        Row(
            "evaluate.sweep_over_single",
            "60 thresholds in one pass over 60 single evaluations, reading included",
            better="higher",
            bound=20,
        ),
    ),
    Group(
        "tests.benchmark.crf:over_reference",
        Row("crf.over_reference_3", f"speed-up over pydensecrf2: {CRF}, 3 labels", better="higher", bound=1.0),
        Row("crf.over_reference_21", f"speed-up over pydensecrf2: {CRF}, 21 labels", better="higher", bound=1.0),
    ),
    Group(
        "tests.benchmark.crf:sharing",
        Row("crf.shared_over_unshared", "two CRF calls on one photo, 3 labels, 12 iterations: set-up shared or not"),
    ),
    Group(
        "tests.benchmark.crf:memory",
        Row("crf.peak_memory", f"memory that a call needs: {CRF}, 21 labels", "MB"),
    ),
    Group(
        "tests.benchmark.crf:gpu",
        Row("crf.gpu_over_cpu_3", f"speed-up of a GPU over one core: {CRF}, 3 labels", better="higher", bound=50),
        Row("crf.gpu_over_cpu_21", f"speed-up of a GPU over one core: {CRF}, 21 labels", better="higher", bound=50),
        Row(
            "crf.gpu_batch_over_cpu_3",
            f"the same with a batch of 16 photos: {CRF}, 3 labels",
            better="higher",
            bound=50,
        ),
        Row(
            "crf.gpu_batch_over_cpu_21",
            f"the same with a batch of 16 photos: {CRF}, 21 labels",
            better="higher",
            bound=50,
        ),
    ),
    Group(
        "tests.benchmark.walk:sparse_over_dense",
        Row(
            "walk.sparse_over_dense",
            "random walk of 3 channels over 94x125 cells, 256 steps, over eight squarings of the dense matrix (minutes)",
            better="higher",
            bound=500,
        ),
    ),
    Group(
        "tests.benchmark.walk:memory",
        Row("walk.peak_memory", "memory that this walk adds to a process", "MB", bound=200),
    ),
    Group(
        "tests.benchmark.walk:gpu",
        Row("walk.gpu_over_cpu", "speed-up of a GPU over one core: that walk of one image", better="higher", bound=50),
    ),
    Group(
        "tests.benchmark.report:hundred_runs",
        Row("report.hundred_runs", "CPU seconds of the static report of 100 made-up runs", "s", bound=20.0),
    ),
    Group(
        "tests.benchmark.shards:two_over_one",
        Row("shards.crf_two_over_one", f"speed-up of `frugalseg crf`, kind crf, {RANKS}", better="higher", bound=1.7),
        Row("shards.walk_two_over_one", f"of `frugalseg walk`, kind refined, {RANKS}", better="higher", bound=1.7),
        Row("shards.tiling_two_over_one", f"of `frugalseg data prepare isaid5i`, {RANKS}", better="higher", bound=1.7),
        slow=True,
    ),
    *STEP_GROUPS,
]
