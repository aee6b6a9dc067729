"""The overlay of docs/settings.md: one amount reaches the portal and the storage containers of the cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KUBECTL = ROOT / ".venv" / "bin" / "kubectl"


def test_the_overlay_of_the_documents_sets_the_memory_in_both_places(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "settings.md").read_text().partition("## Memory of downloads")[2]
    (overlay,) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    shutil.copytree(ROOT / "k8s" / "portal", tmp_path / "portal")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(overlay)
    made = subprocess.run([KUBECTL, "kustomize", str(tmp_path / "mine")], capture_output=True, text=True, check=True)
    objects: list[dict[str, Any]] = list(yaml.safe_load_all(made.stdout))
    (config,) = (item for item in objects if item["kind"] == "ConfigMap" and item["metadata"]["name"] == "slipway")
    assert config["data"]["SLIPWAY_FETCH_MEMORY"] == "24Gi"
    containers = [item["spec"]["container"] for item in objects if item["kind"] == "ClusterStorageContainer"]
    assert [item["resources"]["limits"] for item in containers] == [{"cpu": "4", "memory": "24Gi"}] * 2
