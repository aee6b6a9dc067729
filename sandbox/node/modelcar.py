"""An image with a model that runs as a sidecar: its shell links the model's folder to where an engine looks for it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from sandbox.engine.boot import ModelFiles
from sandbox.node.images import Weights

# `$$` of the manifest, as the kubelet hands it on.
LINK = re.compile(r"ln -sf /proc/\$\$/root(?P<folder>/\S*) (?P<place>/\S+)")
NO_PROGRAM, NO_FILES, NOTHING_TO_DO = 127, 2, 0


class Modelcar:
    """One run of it: `hand_over` takes a path of the container and the model that is found there from now on."""

    out_of_memory = False

    def __init__(
        self,
        weights: Weights,
        command: Sequence[str],
        hand_over: Callable[[str, ModelFiles], None],
        write: Callable[[str], None],
    ) -> None:
        self.weights = weights
        self.command = command
        self.hand_over = hand_over
        self.write = write
        self._stop = asyncio.Event()

    async def run(self) -> int:
        """Link, and wait for SIGTERM; without a shell or a folder it ends at once."""
        name = self.command[0] if self.command else ""
        if not self.weights.shell:
            self.write(f'exec: "{name}": executable file not found in $PATH')
            return NO_PROGRAM
        link = LINK.search(self.command[-1]) if self.command else None
        if link is None:
            return NOTHING_TO_DO
        if link["folder"] != self.weights.folder:
            self.write(f"ls: {link['folder']}: No such file or directory")
            return NO_FILES
        self.hand_over(link["place"], self.weights.files)
        await self._stop.wait()
        return 143

    def terminate(self) -> None:
        """SIGTERM ends `sleep`."""
        self._stop.set()
