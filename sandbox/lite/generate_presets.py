"""Makes data/presets.json, KServe's presets for LLMInferenceServices; run by hand when its version changes.

    python -m sandbox.lite.generate_presets DIR_WITH_PRESET_YAML

The directory is `config/llmisvcconfig` of KServe's module. Every preset gets the namespace its kustomization names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

PRESETS = Path(__file__).parent / "data" / "presets.json"
KIND = "LLMInferenceServiceConfig"


def main(argv: list[str]) -> int:
    """Write the file; returns the exit status."""
    if len(argv) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    folder = Path(argv[0])
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    presets = []
    for name in sorted(kustomization["resources"]):
        for document in yaml.safe_load_all((folder / name).read_text()):
            if document and document["kind"] == KIND:
                document["metadata"]["namespace"] = kustomization["namespace"]
                presets.append(document)
    PRESETS.write_text(json.dumps(presets, separators=(",", ":")) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
