"""Where the files of each benchmark come from, and what a person has to do where no program may fetch them.

Digests and sizes: the md5 sums that torchvision and torchgeo check, the sizes and sha256 sums that TensorFlow Datasets
lists, and download logs of public repositories (datasets.md). Where nothing is published the field is None.
"""

from typing import NamedTuple


class Source(NamedTuple):
    """One published file.

    Attributes:
        url: where it is.
        name: its file name.
        digest: `algorithm:hex`, or None where no checksum is published.
        size: bytes, or None where no exact number is published.
        unpack: folder relative to the root, in which an archive is unpacked and any other file is put.
    """

    url: str
    name: str
    digest: str | None
    size: int | None
    unpack: str = "."


_COCO = "http://images.cocodataset.org"

SOURCES: dict[str, tuple[Source, ...]] = {
    "voc": (
        Source(
            "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
            "VOCtrainval_11-May-2012.tar",
            "md5:6cd6e144f989b92b3379bac3b3de84fd",
            1_999_639_040,
        ),
    ),
    "sbd": (
        Source(
            "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
            "benchmark.tgz",
            "md5:82b4d87ceb2ed10f6038a1cba92111cb",
            1_419_539_633,
        ),
        Source(
            "https://www.cs.cornell.edu/~bharathh/train_noval.txt",
            "train_noval.txt",
            "md5:79bff800c5f0b1ec6b21080a3c066722",
            None,
            "benchmark_RELEASE/dataset",
        ),
    ),
    "coco2014": (
        Source(
            f"{_COCO}/zips/train2014.zip",
            "train2014.zip",
            "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
            13_510_573_713,
        ),
        Source(
            f"{_COCO}/zips/val2014.zip",
            "val2014.zip",
            "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
            6_645_013_297,
        ),
        Source(
            f"{_COCO}/annotations/annotations_trainval2014.zip",
            "annotations_trainval2014.zip",
            "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
            252_872_794,
        ),
    ),
    "coco2017": (
        Source(
            f"{_COCO}/zips/train2017.zip",
            "train2017.zip",
            "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            19_336_861_798,
        ),
        Source(
            f"{_COCO}/zips/val2017.zip",
            "val2017.zip",
            "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            815_585_330,
        ),
        Source(
            f"{_COCO}/annotations/annotations_trainval2017.zip",
            "annotations_trainval2017.zip",
            "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            252_907_541,
        ),
    ),
    "coco-stuff": (
        Source(
            "http://calvin.inf.ed.ac.uk/wp-content/uploads/data/cocostuffdataset/stuffthingmaps_trainval2017.zip",
            "stuffthingmaps_trainval2017.zip",
            None,
            None,
            "stuffthingmaps",
        ),
    ),
    "ade20k": (
        Source(
            "http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
            "ADEChallengeData2016.zip",
            "md5:7328b3957e407ddae1d3cbf487f149ef",
            None,
        ),
    ),
    "dlrsd": (
        Source(
            # torchgeo's mirror of the original archive, whose own server answers now and then
            "https://hf.co/datasets/torchgeo/ucmerced/resolve/7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a/UCMerced_LandUse.zip",
            "UCMerced_LandUse.zip",
            "sha256:06c539ef28703a58fb07bd2837991ac7c48b813b00bb12ac197efd813a18daeb",
            332_468_434,
        ),
    ),
}
"""What needs no login, by benchmark."""

STEPS: dict[str, str] = {
    "cityscapes": """\
1. Make an account at https://www.cityscapes-dataset.com (non-commercial use) and log in.
2. Fetch gtFine_trainvaltest.zip      https://www.cityscapes-dataset.com/file-handling/?packageID=1
   and   leftImg8bit_trainvaltest.zip https://www.cityscapes-dataset.com/file-handling/?packageID=3
   No checksum is published for either.
3. Unpack both in {root}, which then holds
     leftImg8bit/{{train,val,test}}/<city>/<city>_<seq>_<frame>_leftImg8bit.png
     gtFine/{{train,val,test}}/<city>/<city>_<seq>_<frame>_gtFine_labelIds.png
   with 2,975, 500 and 1,525 images.
4. Then
   frugalseg data check cityscapes --root {root}""",
    "isaid": """\
1. Open https://captain-whu.github.io/iSAID/dataset.html. The images are those of DOTA-v1.0 (academic use only): follow
   the page's link to them, fetch part1.zip, part2.zip ... of training and validation, and unpack them as
     {root}/{{train,val}}/images/P0000.png ...
2. From the same page fetch Semantic_masks/images.zip of training and validation and unpack them as
     {root}/{{train,val}}/Semantic_masks/images/P0000_instance_color_RGB.png ...
   No checksum is published for any of these. There are 1,411 images for training and 458 for validation.
3. Few-shot work takes tiles of 256 x 256:
   frugalseg data prepare isaid5i --raw {root} --root {root}/iSAID_patches
   frugalseg data check isaid5i --root {root}/iSAID_patches""",
    "isaid5i": """\
1. The tiles for few-shot work (256 x 256, SDM's) are one archive at Google Drive:
     https://drive.google.com/open?id=17PQ1iKCbaj2OjwBdCn_VBh09ntI4lxgL
   or at Baidu: https://pan.baidu.com/s/1kGvYMkHoV1eBM1k4VSG-HA (password nwpu). No checksum is published.
2. Unpack it in {root}, which then holds
     remote_sensing/iSAID_patches/{{train,val}}/images/P####_y0_y1_x0_x1.png
     remote_sensing/iSAID_patches/{{train,val}}/semantic_png/P####_y0_y1_x0_x1_instance_color_RGB.png
     remote_sensing/iSAID_patches/train/train_list/split{{0,1,2}}_train.txt
     remote_sensing/iSAID_patches/val/val_list/split{{0,1,2}}_val.txt
   with 18,076 tiles for training and 6,363 for validation.
   The tiles can also be cut from iSAID itself; its steps are printed by
   frugalseg data get isaid --root {root}
3. Then
   frugalseg data check isaid5i --root {root}/remote_sensing/iSAID_patches""",
    "dlrsd": """\
1. The images, UC Merced's, need no login: UCMerced_LandUse.zip is fetched by this command (torchgeo publishes
   md5 5b7ec56793786b6dc8a908e8854ac0e4 for it) and gives {root}/UCMerced_LandUse/Images/<folder>/<folder>00.tif ...
2. The labels: open https://sites.google.com/view/zhouwx/dataset, find DLRSD and fetch its archive (research use). No
   checksum is published.
3. Unpack it so that {root} holds DLRSD/Images/<folder>/<folder>00.png ... (21 folders of 100).
4. Then
   frugalseg data check dlrsd --root {root}""",
}
"""What a person has to do, by benchmark; `{root}` is the folder that was given."""

NEXT: dict[str, str] = {
    "voc": "frugalseg data check voc --root {root}/VOCdevkit/VOC2012",
    "sbd": "frugalseg data prepare sbd --sbd {root}/benchmark_RELEASE --root {root}/VOCdevkit/VOC2012",
    "coco2014": "frugalseg data prepare coco --root {root}\nfrugalseg data check coco2014 --root {root}",
    "coco2017": "frugalseg data prepare coco --root {root} --folders train2017 val2017\n"
    "frugalseg data check coco2017 --root {root}",
    "coco-stuff": "frugalseg data get coco2017 --root {root}\nfrugalseg data check coco-stuff --root {root}",
    "ade20k": "frugalseg data check ade20k --root {root}/ADEChallengeData2016",
}
"""The commands that come when everything is there."""


def steps(benchmark: str, root: str) -> str:
    """The steps for a benchmark that a person has to fetch, with the folder filled in; empty where there are none.

    Args:
        benchmark: key of `SOURCES` or `STEPS`.
        root: folder that was given.
    """
    return STEPS.get(benchmark, "").format(root=root)
