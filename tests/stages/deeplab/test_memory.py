"""What a pass takes, counted by hand on small nets; what is free, from made-up system files."""

import pytest
import torch
from torch import nn

from frugalseg.stages.deeplab import memory
from frugalseg.stages.deeplab.memory import SCRATCH, bytes_per_pixel, free_bytes, resident_bytes

CPU = torch.device("cpu")


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, image):
        x = self.first(image)
        return x + self.second(torch.sin(x))


@pytest.mark.parametrize(
    ("net", "depths"),
    [
        (nn.Conv2d(3, 8, 1), 8),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)), 8 + 5),
        # the first map is gone when the third is made
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(5, 2, 1)), 8 + 5),
        (nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True)), 8),
        (nn.Conv2d(3, 8, 2, stride=2), 8 / 4),
        # x, sin(x) and the second convolution's map; then x, that map and the sum
        (Residual(), 24),
    ],
)
@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("mode", ["none", "inference"])
def test_live_bytes_of_a_pass(net, depths, images, mode):
    with torch.inference_mode(mode == "inference"):
        assert bytes_per_pixel(net, images, CPU) == pytest.approx(SCRATCH * 4 * depths * images)


def test_the_probe_leaves_the_net_as_it_is():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).train()
    before = {n: t.clone() for n, t in net.state_dict().items()}
    bytes_per_pixel(net, 2, CPU)
    assert net.training and all(torch.equal(t, net.state_dict()[n]) for n, t in before.items())
    net.eval()
    bytes_per_pixel(net, 2, CPU)
    assert not net.training


def test_this_machine_has_memory():
    assert 2**20 < free_bytes(CPU) < 2**50
    assert resident_bytes() > 2**24
    assert free_bytes(torch.device("meta")) == float("inf")


@pytest.fixture
def system(tmp_path, monkeypatch):
    """Made-up /proc and /sys/fs/cgroup: 8 GiB to be had, 100 MiB resident, no limit."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr(memory, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(memory.os, "sysconf", lambda name: 4096)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("proc/meminfo", f"MemTotal: 99 kB\nMemAvailable: {8 * 2**20} kB\n")
    write("proc/self/statm", f"1 {100 * 2**20 // 4096} 3\n")
    write("proc/self/cgroup", "0::/\n")
    return write


GIB = 2**30


def test_the_kernels_estimate(system):
    assert free_bytes(CPU) == 8 * GIB


def test_memory_that_the_allocator_keeps_can_be_used_again(system):
    assert free_bytes(CPU, resident=40 * 2**20) == 8 * GIB + 60 * 2**20
    assert free_bytes(CPU, resident=200 * 2**20) == 8 * GIB


def test_limits_of_version_2(system):
    system("proc/self/cgroup", "0::/job/step\n")
    system("cgroup/job/step/memory.max", "max\n")
    system("cgroup/job/step/memory.current", "1\n")
    system("cgroup/job/memory.max", f"{5 * GIB}\n")
    system("cgroup/job/memory.current", f"{4 * GIB}\n")
    system("cgroup/job/memory.stat", f"anon 5\ninactive_file {GIB}\n")
    assert free_bytes(CPU) == 2 * GIB


def test_a_container_sees_its_limit_at_the_top(system):
    system("cgroup/memory.max", f"{3 * GIB}\n")
    system("cgroup/memory.current", f"{GIB}\n")
    system("cgroup/memory.stat", "anon 5\n")
    assert free_bytes(CPU) == 2 * GIB


def test_limits_of_version_1(system):
    system("proc/self/cgroup", "3:cpu,cpuacct:/x\n9:memory:/job\n")
    system("cgroup/memory/job/memory.limit_in_bytes", f"{5 * GIB}\n")
    system("cgroup/memory/job/memory.usage_in_bytes", f"{GIB}\n")
    system("cgroup/memory/job/memory.stat", "inactive_file 0\n")
    system("cgroup/cpu/x/memory.limit_in_bytes", "1\n")
    assert free_bytes(CPU) == 4 * GIB


def test_a_system_that_tells_nothing_limits_nothing(system, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path / "nowhere")
    assert free_bytes(CPU) == float("inf")
    assert resident_bytes() == 0
