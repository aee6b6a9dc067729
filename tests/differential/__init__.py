"""The same requests to `lite` and to a real kube-apiserver, and what differs between their answers."""

from __future__ import annotations

import os

SEED = int(os.environ.get("SLIPWAY_SEED", "1"))  # what generated sequences begin from
