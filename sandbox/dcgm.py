"""The GPU exporter of a node: dcgm-exporter 4.8's default metrics, from what the engines really did.

Values are worked out when somebody asks: utilisation over the time since the last reading, temperature and
power with the inertia of a real card. Between scrapes nothing runs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.asgi import Receive, Request, Scope, Send, send_answer, text_answer
from sandbox.engine.process import GpuUse
from sandbox.nodes import DRIVER, MIB, Gpu, NodeShape, gpu_uuid

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
COLLECT_SECONDS = 1.0  # readings closer together than this are the same
THERMAL_SECONDS = 35.0
POWER_SECONDS = 1.5
HOT_CELSIUS = 46.0  # above idle at full load
RESERVED_SHARE = 0.006
CONTEXT_BYTES = 3 * MIB  # what an idle card shows as used
PCIE_IDLE, PCIE_BUSY = 4.0e5, 9.0e7  # bytes per second


@dataclass(frozen=True)
class Metric:
    """One exported field."""

    name: str
    kind: str
    help: str
    digits: int = 0


METRICS = (
    Metric("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz)."),
    Metric("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz)."),
    Metric("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C)."),
    Metric("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C)."),
    Metric("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).", 3),
    Metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", "Total energy consumption since boot (in mJ)."),
    Metric("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries."),
    Metric("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %)."),
    Metric("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %)."),
    Metric("DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization (in %)."),
    Metric("DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization (in %)."),
    Metric("DCGM_FI_DEV_XID_ERRORS", "gauge", "Value of the last XID error encountered."),
    Metric("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB)."),
    Metric("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB)."),
    Metric("DCGM_FI_DEV_FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB)."),
    Metric("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "counter", "Total number of NVLink bandwidth counters for all lanes."),
    Metric("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "gauge", "vGPU License status"),
    Metric("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for uncorrectable errors"),
    Metric("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter", "Number of remapped rows for correctable errors"),
    Metric("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed"),
    Metric("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge", "Ratio of time the graphics engine is active.", 6),
    Metric("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge", "Ratio of cycles the tensor (HMMA) pipe is active.", 6),
    Metric(
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "gauge",
        "Ratio of cycles the device memory interface is active sending or receiving data.",
        6,
    ),
    Metric(
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        "gauge",
        "The rate of data transmitted over the PCIe bus - including both protocol headers and data payloads - in bytes "
        "per second.",
    ),
    Metric(
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        "gauge",
        "The rate of data received over the PCIe bus - including both protocol headers and data payloads - in bytes "
        "per second.",
    ),
)


@dataclass(frozen=True)
class Holder:
    """The container on a card."""

    namespace: str
    pod: str
    container: str


@dataclass
class Card:
    """One GPU as its sensors show it."""

    gpu: Gpu
    temperature: float
    power: float
    energy: float = 0.0  # millijoule
    holder: Holder | None = None
    use: GpuUse = field(default_factory=lambda: GpuUse(0.0, 0.0, 0.0, 0))
    busy: float = 0.0
    tensor: float = 0.0
    dram: float = 0.0
    at: float | None = None

    def read(self, now: float, use: GpuUse, holder: Holder | None) -> None:
        """Take a reading at `now`, a monotonic time in seconds."""
        if self.at is None:
            self.at, self.use, self.holder = now, use, holder
            return
        seconds = now - self.at
        if seconds < COLLECT_SECONDS and holder == self.holder:
            return
        seconds = max(seconds, 1e-3)
        # A restarted engine counts from zero again.
        before = self.use if use.busy_seconds >= self.use.busy_seconds else GpuUse(0.0, 0.0, 0.0, 0)
        self.busy = min(1.0, (use.busy_seconds - before.busy_seconds) / seconds)
        self.tensor = min(1.0, (use.flops - before.flops) / seconds / self.gpu.flops_16)
        self.dram = min(1.0, (use.bytes_moved - before.bytes_moved) / seconds / self.gpu.bandwidth)
        self.at, self.use, self.holder = now, use, holder
        self._warm(seconds)

    def _warm(self, seconds: float) -> None:
        gpu = self.gpu
        load = self.busy * (0.35 + 0.45 * min(1.0, self.dram * 1.3) + 0.2 * min(1.0, self.tensor * 2))
        base = gpu.idle_watts * (1.35 if self.use.memory else 1.0)
        target = base + (gpu.max_watts - base) * load
        self.power += (target - self.power) * (1 - math.exp(-seconds / POWER_SECONDS))
        warmth = (self.power - gpu.idle_watts) / (gpu.max_watts - gpu.idle_watts)
        goal = gpu.idle_celsius + HOT_CELSIUS * warmth
        self.temperature += (goal - self.temperature) * (1 - math.exp(-seconds / THERMAL_SECONDS))
        self.energy += self.power * seconds * 1000

    def values(self) -> dict[str, float]:
        """Every exported field."""
        gpu = self.gpu
        reserved = gpu.memory_mib * RESERVED_SHARE
        used = (self.use.memory or CONTEXT_BYTES) / MIB + (420 if self.use.memory else 0)
        used = min(used, gpu.memory_mib - reserved)
        awake = self.busy > 0 or self.use.memory > 0
        pcie = PCIE_IDLE + PCIE_BUSY * self.busy
        return {
            "DCGM_FI_DEV_SM_CLOCK": gpu.sm_mhz[1] if awake else gpu.sm_mhz[0],
            "DCGM_FI_DEV_MEM_CLOCK": gpu.memory_mhz if awake or gpu.hbm else 405,
            "DCGM_FI_DEV_MEMORY_TEMP": self.temperature + 8 if gpu.hbm else 0,
            "DCGM_FI_DEV_GPU_TEMP": self.temperature,
            "DCGM_FI_DEV_POWER_USAGE": self.power,
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": self.energy,
            "DCGM_FI_DEV_GPU_UTIL": 100 * self.busy,
            "DCGM_FI_DEV_MEM_COPY_UTIL": 100 * self.dram,
            "DCGM_FI_DEV_FB_FREE": gpu.memory_mib - reserved - used,
            "DCGM_FI_DEV_FB_USED": used,
            "DCGM_FI_DEV_FB_RESERVED": reserved,
            "DCGM_FI_PROF_GR_ENGINE_ACTIVE": self.busy,
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": self.tensor,
            "DCGM_FI_PROF_DRAM_ACTIVE": self.dram,
            "DCGM_FI_PROF_PCIE_TX_BYTES": pcie,
            "DCGM_FI_PROF_PCIE_RX_BYTES": pcie * 0.8,
        }


GpuReader = Callable[[int], tuple[GpuUse, Holder] | None]


class DcgmExporter:
    """The ASGI application on port 9400."""

    def __init__(self, shape: NodeShape, read: GpuReader, clock: Callable[[], float] = time.monotonic) -> None:
        self.shape = shape
        self.clock = clock
        self._read = read
        self.cards = [Card(shape.gpu, shape.gpu.idle_celsius, shape.gpu.idle_watts) for _ in range(shape.gpus)]
        self.collect()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        if request.path == "/metrics":
            await send_answer(send, text_answer(self.text(), content_type=CONTENT_TYPE))
        elif request.path == "/health":
            await send_answer(send, text_answer("KO" if not self.cards else "OK"))
        else:
            await send_answer(send, text_answer("404 page not found\n", 404))

    def collect(self) -> None:
        """Read every card."""
        now = self.clock()
        for index, card in enumerate(self.cards):
            found = self._read(index)
            use, holder = found if found is not None else (GpuUse(0.0, 0.0, 0.0, 0), None)
            card.read(now, use, holder)

    def text(self) -> str:
        """The exposition text of this moment."""
        self.collect()
        readings = [(self._labels(index, card), card.values()) for index, card in enumerate(self.cards)]
        out: list[str] = []
        for metric in METRICS:
            if metric.name == "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL" and not self.shape.gpu.hbm:
                continue
            out.append(f"# HELP {metric.name} {metric.help}\n# TYPE {metric.name} {metric.kind}\n")
            extra = ',err_code="0",err_msg="No Error"' if metric.name == "DCGM_FI_DEV_XID_ERRORS" else ""
            for labels, values in readings:
                out.append(f"{metric.name}{{{labels}{extra}}} {values.get(metric.name, 0.0):.{metric.digits}f}\n")
        return "".join(out)

    def _labels(self, index: int, card: Card) -> str:
        labels = {
            "gpu": str(index),
            "UUID": gpu_uuid(self.shape, index),
            "pci_bus_id": f"00000000:{0x1B + 0x10 * index:02X}:00.0",
            "device": f"nvidia{index}",
            "modelName": self.shape.gpu.name,
            "Hostname": self.shape.name,
            "DCGM_FI_DRIVER_VERSION": DRIVER,
        }
        if card.holder is not None:
            holder = card.holder
            labels |= {"container": holder.container, "namespace": holder.namespace, "pod": holder.pod}
        return ",".join(f'{name}="{value}"' for name, value in labels.items())
