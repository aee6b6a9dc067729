"""The GPU exporter shows what the engines did, in dcgm-exporter's own names."""

import json
import re
from pathlib import Path

import pytest

from sandbox.dcgm import DcgmExporter, Holder
from sandbox.engine.process import GpuUse
from sandbox.nodes import GIB, SHAPES

COUNTERS = Path(__file__).parents[1] / "data" / "dcgm-4.8" / "default-counters.json"
HOLDER = Holder("team-a", "chat-predictor-1", "kserve-container")
IDLE = GpuUse(0.0, 0.0, 0.0, 0)


class Bench:
    """An exporter with a clock and an engine on card 0 that the test moves."""

    def __init__(self, node: str = "gpu-l4-1") -> None:
        self.now = 0.0
        self.use: GpuUse | None = None
        self.exporter = DcgmExporter(SHAPES[node], self._read, lambda: self.now)

    def _read(self, index):
        return (self.use, HOLDER) if index == 0 and self.use is not None else None

    def work(self, seconds: float, *, busy: float, memory: int = 20 * GIB) -> None:
        """Let time pass with the card busy for a share of it, reading every five seconds."""
        gpu = self.exporter.shape.gpu
        for _ in range(int(seconds / 5)):
            self.now += 5
            before = self.use or IDLE
            self.use = GpuUse(
                before.busy_seconds + 5 * busy,
                before.flops + 5 * busy * 0.1 * gpu.flops_16,
                before.bytes_moved + 5 * busy * 0.7 * gpu.bandwidth,
                memory,
            )
            self.exporter.collect()

    def value(self, name: str, index: int = 0) -> float:
        match = re.search(rf'^{name}{{gpu="{index}".*}} (\S+)$', self.exporter.text(), re.M)
        assert match, name
        return float(match[1])


def test_names_types_and_help_are_the_default_counters_of_dcgm_exporter():
    recorded = {}
    for entry in json.loads(COUNTERS.read_text())["counters"]:
        if entry["type"] != "label":
            recorded[entry["name"]] = (entry["type"], entry["help"])

    text = Bench("gpu-h100-1").exporter.text()
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    types = dict(re.findall(r"^# TYPE (\S+) (.*)$", text, re.M))

    assert {name: (types[name], helps[name]) for name in helps} == recorded


def test_every_card_has_its_labels_and_only_a_held_one_names_a_pod():
    bench = Bench()
    bench.work(5, busy=0.5)

    lines = [line for line in bench.exporter.text().splitlines() if line.startswith("DCGM_FI_DEV_GPU_UTIL")]

    assert len(lines) == 8
    for part in ('device="nvidia0"', 'modelName="NVIDIA L4"', 'Hostname="gpu-l4-1"', "DCGM_FI_DRIVER_VERSION=",
                 'container="kserve-container",namespace="team-a",pod="chat-predictor-1"'):  # fmt: skip
        assert part in lines[0]
    assert "pod=" not in lines[1]
    assert len({re.search(r'UUID="([^"]+)"', line)[1] for line in lines}) == 8


def test_utilisation_is_the_share_of_time_since_the_last_reading():
    bench = Bench()
    bench.work(60, busy=0.4)

    assert bench.value("DCGM_FI_DEV_GPU_UTIL") == pytest.approx(40, abs=1)
    assert bench.value("DCGM_FI_PROF_GR_ENGINE_ACTIVE") == pytest.approx(0.4, abs=0.01)
    assert bench.value("DCGM_FI_PROF_DRAM_ACTIVE") == pytest.approx(0.28, abs=0.01)
    assert bench.value("DCGM_FI_DEV_GPU_UTIL", 1) == 0


def test_memory_is_what_the_engine_holds_and_used_and_free_make_the_whole():
    bench = Bench()
    bench.work(5, busy=0.0, memory=20 * GIB)

    used, free = bench.value("DCGM_FI_DEV_FB_USED"), bench.value("DCGM_FI_DEV_FB_FREE")
    reserved = bench.value("DCGM_FI_DEV_FB_RESERVED")

    assert 20 * 1024 <= used <= 21 * 1024
    assert used + free + reserved == pytest.approx(SHAPES["gpu-l4-1"].gpu.memory_mib, abs=2)


def test_heat_comes_and_goes_slowly_and_power_fast():
    bench = Bench()
    cold, resting = bench.value("DCGM_FI_DEV_GPU_TEMP"), bench.value("DCGM_FI_DEV_POWER_USAGE")

    bench.work(10, busy=1.0)
    early, power = bench.value("DCGM_FI_DEV_GPU_TEMP"), bench.value("DCGM_FI_DEV_POWER_USAGE")
    bench.work(300, busy=1.0)
    hot = bench.value("DCGM_FI_DEV_GPU_TEMP")
    bench.work(10, busy=0.0)
    cooling = bench.value("DCGM_FI_DEV_GPU_TEMP")

    assert cold < early < hot
    assert hot - early > early - cold
    assert cold < cooling < hot
    assert power > 2.5 * resting
    assert hot < 90
    assert bench.value("DCGM_FI_DEV_POWER_USAGE") < power


def test_energy_only_grows():
    bench = Bench()
    readings = []
    for busy in (1.0, 0.0, 0.5):
        bench.work(20, busy=busy)
        readings.append(bench.value("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"))

    assert readings == sorted(readings)
    assert readings[0] > 0


def test_two_scrapers_at_the_same_moment_see_the_same():
    bench = Bench()
    bench.work(30, busy=0.5)
    bench.now += 0.2

    assert bench.exporter.text() == bench.exporter.text()
    assert bench.value("DCGM_FI_DEV_GPU_UTIL") == pytest.approx(50, abs=1)


def test_a_restarted_engine_does_not_make_utilisation_negative():
    bench = Bench()
    bench.work(30, busy=0.9)
    bench.use = GpuUse(1.0, 0.0, 0.0, 20 * GIB)
    bench.now += 5

    assert bench.value("DCGM_FI_DEV_GPU_UTIL") == pytest.approx(20, abs=1)
