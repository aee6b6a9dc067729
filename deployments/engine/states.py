"""Layers that keep a state in place of a KV cache: from which vLLM on prefill hands what they keep over to decode.

Read from kv_connector/v1/ssm_conv_transfer_utils.py of each release, which takes the state apart by the kind of layer.
"""

from __future__ import annotations

from deployments.engine.facts import ModelFacts
from deployments.engine.flags import release

# As the engine must lay the states out to hand them over; releases before do not know the variable.
LAYOUT = {"VLLM_SSM_CONV_STATE_LAYOUT": "DS"}
LAYOUT_SINCE = (0, 20)
# Short convolutions (LFM2), linear attention (MiniMax, Ling), and Mamba without groups (PLaMo 2).
NEVER = ("Lfm2", "ColBERTLfm2", "MiniMax", "BailingMoeV2_5", "Plamo2")
# By the family: Mamba, Mamba 2, Kimi Delta Attention; all others have gated delta networks.
SINCE = {
    ("Jamba", "MambaFor", "FalconMamba"): (0, 25),
    ("Mamba2", "Bamba", "NemotronH", "GraniteMoeHybrid", "FalconH1", "Zamba2"): (0, 20),
    ("Kimi",): (0, 23),
}
SINCE_OTHERS = (0, 22)


def states_handed_over(model: ModelFacts) -> tuple[int, ...] | None:
    """The release from which on the states of this model are handed over; None where none does."""
    if model.architecture.startswith(NEVER):
        return None
    return next((since for names, since in SINCE.items() if model.architecture.startswith(names)), SINCE_OTHERS)


def layout_variables(version: str) -> dict[str, str]:
    """Environment variables of an engine that hands states over; it takes no notice of them where there are none."""
    return dict(LAYOUT) if release(version) >= LAYOUT_SINCE else {}
