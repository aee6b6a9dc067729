"""KServe's storage initializer: brings a model into a volume, or ends as the real one does."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import NoReturn

from sandbox.engine.boot import ModelFiles, OutOfMemory
from sandbox.node.hub import HubClient, HubError, Snapshot
from sandbox.node.stores import GOOGLE, StoreError, Stores

SCHEMES = (
    "gs://", "s3://", "hdfs://", "webhdfs://", "hf://", "https://(.+?).blob.core.windows.net/(.+)", "file://",
    "https?://(.+)/(.+)",
)  # fmt: skip
PLACES = ("s3://", "gs://", "https://", "http://")
HF_URI = re.compile(r"hf://([^/:]+)/([^/:]+)(?::([^/]+))?")
NETWORK_SECONDS = (32.0, 60.0)  # at speed 1: of the smallest and the largest model
LARGEST_GIB = 140.0
REAL_BYTES_PER_SECOND = 1e9  # what the shortened download is compared with in the log
PROGRESS_STEPS = 12
LEAST_MEMORY = 64 * 2**20  # bytes below which Python itself does not start

FRAMES = """Traceback (most recent call last):
  File "/storage-initializer/scripts/initializer-entrypoint", line 17, in <module>
    Storage.download_files(src_paths, dest_paths)
  File "/prod_venv/lib/python3.11/site-packages/kserve_storage/kserve_storage.py", line 121, in download"""
HF_FRAMES = """    Storage._download_hf(uri, out_dir)
  File "/prod_venv/lib/python3.11/site-packages/kserve_storage/kserve_storage.py", line 213, in _download_hf
    snapshot_download("""


class Failed(Exception):
    """The download ended; the text is what Python prints last."""


class Initializer:
    """One run of the storage initializer. `sleep` takes seconds at speed 1."""

    def __init__(
        self,
        hub: HubClient,
        write: Callable[[str], None],
        sleep: Callable[[float], Awaitable[None]],
        speed: float,
        memory_limit: float | None,
    ) -> None:
        self.hub = hub
        self.write = write
        self.sleep = sleep
        self.speed = speed
        self.memory_limit = memory_limit

    patterns: Sequence[str] = ()  # of the files to bring; none for all
    google = GOOGLE  # where buckets of gs:// are

    async def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, ModelFiles]:
        """Download every (source, destination) pair; raises Failed or OutOfMemory. The log says what happens."""
        if self.memory_limit is not None and self.memory_limit < LEAST_MEMORY:
            raise OutOfMemory
        with contextlib.suppress(ValueError):
            self.patterns = json.loads(environment.get("STORAGE_ALLOW_PATTERNS", "[]"))
        pairs = list(zip(arguments[::2], arguments[1::2], strict=False))
        if not pairs:
            self._fail("IndexError: list index out of range", "")
        sources = [source for source, _ in pairs]
        places = [place for _, place in pairs]
        self._info("initializer-entrypoint:<module>():16", f"Initializing, args: src_uri {sources} dest_path{places}")
        found: dict[str, ModelFiles] = {}
        for source, place in pairs:
            begun = time.monotonic()
            self._info("kserve_storage.py:download():104", f"Copying contents of {source} to local")
            found[place] = await self._fetch(source, environment)
            took = time.monotonic() - begun
            self._info("kserve_storage.py:download():132", f"Successfully copied {source} to {place}")
            self._info("kserve_storage.py:download():133", f"Model downloaded in {took:.3f} seconds.")
        return found

    async def _fetch(self, source: str, environment: Mapping[str, str]) -> ModelFiles:
        if source.startswith("hf://"):
            return await self._from_hub(source, environment.get("HF_TOKEN"))
        if source.startswith(PLACES):
            return await self._from_store(source, environment)
        error = (
            f"Exception: Cannot recognize storage type for {source}\n'{list(SCHEMES)}' are the current available "
            "storage type."
        )
        if source.startswith(("hdfs://", "webhdfs://")):
            error = f"ConnectionError: could not reach the store of {source}: the sandbox has none of these"
        return self._fail(error, "    raise")

    async def _from_store(self, source: str, environment: Mapping[str, str]) -> ModelFiles:
        def say(line: str) -> None:
            self._info("kserve_storage.py:download():110", line)

        try:
            files = await Stores(self.hub.http, say, self.google).read(source, environment)
        except StoreError as error:
            self._fail(str(error), "    raise_storage_error(")
        await self._pass(Snapshot(source, "", dict(files.files)))
        return files

    async def _from_hub(self, source: str, token: str | None) -> ModelFiles:
        match = HF_URI.fullmatch(source)
        if match is None:
            self._fail(f"ValueError: Invalid Hugging Face URI format: {source}", "    raise ValueError(")
        model = f"{match[1]}/{match[2]}"
        try:
            snapshot = _chosen(await self.hub.snapshot(model, match[3] or "main", token), self.patterns)
            await self._download(snapshot, token)
            config = await self.hub.config(snapshot, token)
        except HubError as error:
            self._fail(str(error), HF_FRAMES)
        return ModelFiles(config, snapshot.sizes)

    async def _download(self, snapshot: Snapshot, token: str | None) -> None:
        """Ask for each file, then let the bytes pass."""
        for name in snapshot.sizes:
            await self.hub.open(snapshot, name, token)
        await self._pass(snapshot)

    async def _pass(self, snapshot: Snapshot) -> None:
        """Let the bytes pass at the sandbox's pace, with progress in the log."""
        total = sum(snapshot.sizes.values())
        share = min(1.0, total / 2**30 / LARGEST_GIB)
        seconds = NETWORK_SECONDS[0] + (NETWORK_SECONDS[1] - NETWORK_SECONDS[0]) * share
        shown = seconds / self.speed
        named = f"{snapshot.model} at {snapshot.sha[:12]}" if snapshot.sha else snapshot.model
        self.write(
            f"[sandbox] {named}: {total / 1e9:.2f} GB in {len(snapshot.sizes)} files. "
            f"At 1 GB/s this would take {total / REAL_BYTES_PER_SECOND:.0f} s; the sandbox takes {shown:.0f} s."
        )
        for step in range(1, PROGRESS_STEPS + 1):
            await self.sleep(seconds / PROGRESS_STEPS)
            done = total * step // PROGRESS_STEPS
            elapsed = int(shown * step / PROGRESS_STEPS)
            left = int(shown) - elapsed
            files = len(snapshot.sizes) * step // PROGRESS_STEPS
            self.write(
                f"Fetching {len(snapshot.sizes)} files: {100 * step // PROGRESS_STEPS:3d}%| "
                f"{files}/{len(snapshot.sizes)} [00:{elapsed:02d}<00:{max(0, left):02d}] "
                f"{done / 1e9:.2f}G/{total / 1e9:.2f}G ({done}/{total} bytes)"
            )

    def _fail(self, error: str, frames: str) -> NoReturn:
        for line in [*FRAMES.split("\n"), *([frames] if frames else []), *error.split("\n")]:
            self.write(line)
        raise Failed(error)

    def _info(self, where: str, text: str) -> None:
        stamp = datetime.now().strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        self.write(f"{stamp} 1 kserve INFO [{where}] {text}")


def _chosen(snapshot: Snapshot, patterns: Sequence[str]) -> Snapshot:
    """Return a snapshot with the files alone that one of the patterns takes."""
    if not patterns:
        return snapshot
    names = [name for name in snapshot.sizes if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
    return replace(snapshot, sizes={name: snapshot.sizes[name] for name in names})
