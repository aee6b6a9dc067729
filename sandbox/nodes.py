"""The GPU nodes of the sandbox: their cards, addresses and Node objects."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

GIB = 2**30
MIB = 2**20
DRIVER = "580.95.05"
GPU_RESOURCE = "nvidia.com/gpu"


@dataclass(frozen=True)
class Gpu:
    """A kind of card. Rates are dense and per card: bytes per second, floating point operations per second."""

    product: str  # as GPU feature discovery labels it
    name: str  # as NVML names it
    family: str
    compute: tuple[int, int]
    memory_mib: int  # NVML total
    visible_gib: float  # what torch sees
    bandwidth: float
    flops_16: float
    flops_8: float
    link: float  # bytes per second between cards of one node
    idle_watts: float
    max_watts: float
    idle_celsius: float
    sm_mhz: tuple[int, int]  # idle, busy
    memory_mhz: int
    hbm: bool

    @property
    def visible_bytes(self) -> int:
        """Bytes that torch sees."""
        return int(self.visible_gib * GIB)


H100 = Gpu(
    "NVIDIA-H100-80GB-HBM3", "NVIDIA H100 80GB HBM3", "hopper", (9, 0), 81559, 79.2,
    3350e9, 989e12, 1979e12, 450e9, 71.0, 700.0, 31.0, (345, 1980), 2619, True,
)  # fmt: skip
L40S = Gpu(
    "NVIDIA-L40S", "NVIDIA L40S", "ada-lovelace", (8, 9), 46068, 44.42,
    864e9, 362e12, 733e12, 26e9, 36.0, 350.0, 30.0, (210, 2520), 9001, False,
)  # fmt: skip
L4 = Gpu(
    "NVIDIA-L4", "NVIDIA L4", "ada-lovelace", (8, 9), 23034, 22.03,
    300e9, 121e12, 242e12, 26e9, 13.0, 72.0, 34.0, (210, 2040), 6251, False,
)  # fmt: skip


@dataclass(frozen=True)
class NodeShape:
    """One node of the sandbox; `index` is its place in the address plan."""

    name: str
    index: int
    gpu: Gpu
    gpus: int
    cpus: int
    memory_gib: int
    disk_gib: int
    machine: str
    instance_type: str

    def address(self, prefix: str) -> str:
        """The node's IP under a pod prefix such as 127.31."""
        return f"{prefix}.255.{self.index}"

    def pod_cidr(self, prefix: str) -> str:
        """The node's range of pod IPs under a pod prefix."""
        return f"{prefix}.{self.index}.0/24"


SHAPES = {
    shape.name: shape
    for shape in (
        NodeShape("gpu-h100-1", 1, H100, 4, 104, 1024, 2000, "DGXH100", "sandbox.h100x4"),
        NodeShape("gpu-l40s-1", 2, L40S, 8, 96, 768, 1500, "G292-Z40-00", "sandbox.l40sx8"),
        NodeShape("gpu-l4-1", 3, L4, 8, 96, 384, 1000, "Google-Compute-Engine", "sandbox.l4x8"),
        NodeShape("gpu-l4-2", 4, L4, 8, 96, 384, 1000, "Google-Compute-Engine", "sandbox.l4x8"),
    )
}


def labels(shape: NodeShape) -> dict[str, str]:
    """Node labels as kubelet and GPU feature discovery write them."""
    gpu = shape.gpu
    return {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": shape.name,
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": shape.instance_type,
        "nvidia.com/cuda.driver-version.full": DRIVER,
        "nvidia.com/cuda.driver-version.major": DRIVER.split(".")[0],
        "nvidia.com/cuda.driver-version.minor": DRIVER.split(".")[1],
        "nvidia.com/cuda.driver.major": DRIVER.split(".")[0],
        "nvidia.com/cuda.driver.minor": DRIVER.split(".")[1],
        "nvidia.com/cuda.runtime-version.full": "13.0",
        "nvidia.com/cuda.runtime.major": "13",
        "nvidia.com/cuda.runtime.minor": "0",
        "nvidia.com/gfd.timestamp": "1795600000",
        "nvidia.com/gpu.compute.major": str(gpu.compute[0]),
        "nvidia.com/gpu.compute.minor": str(gpu.compute[1]),
        "nvidia.com/gpu.count": str(shape.gpus),
        "nvidia.com/gpu.family": gpu.family,
        "nvidia.com/gpu.machine": shape.machine,
        "nvidia.com/gpu.memory": str(gpu.memory_mib),
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.product": gpu.product,
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/mig.capable": "true" if gpu.hbm else "false",
        "nvidia.com/mig.strategy": "single",
    }


def node_object(shape: NodeShape, prefix: str) -> dict[str, Any]:
    """The Node to create: labels, taint and pod range; its status is written apart."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": shape.name, "labels": labels(shape)},
        "spec": {
            "podCIDR": shape.pod_cidr(prefix),
            "podCIDRs": [shape.pod_cidr(prefix)],
            "taints": [{"key": GPU_RESOURCE, "value": "present", "effect": "NoSchedule"}],
        },
    }


def capacity(shape: NodeShape) -> dict[str, str]:
    """What the machine has."""
    return {
        "cpu": str(shape.cpus),
        "memory": f"{shape.memory_gib * 1024 * 1024}Ki",
        "ephemeral-storage": f"{shape.disk_gib * 1024 * 1024}Ki",
        "pods": "110",
        GPU_RESOURCE: str(shape.gpus),
    }


def allocatable(shape: NodeShape) -> dict[str, str]:
    """What pods may ask for: capacity less what the system keeps."""
    return capacity(shape) | {
        "cpu": str(shape.cpus - 2),
        "memory": f"{(shape.memory_gib - 8) * 1024 * 1024}Ki",
        "ephemeral-storage": f"{int(shape.disk_gib * 0.9) * 1024 * 1024}Ki",
    }


def gpu_uuid(shape: NodeShape, index: int) -> str:
    """A stable UUID for one card."""
    return f"GPU-{uuid.uuid5(uuid.NAMESPACE_DNS, f'{shape.name}/{index}.sandbox.slipway.dev')}"
