"""How the engines of one replica on several nodes find one another: each but the first connects to the first.

The connections are real and stay open: an engine whose partner goes away ends, as vLLM's do.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from sandbox.engine.args import EngineArgs

PATIENCE = 300.0  # seconds, whatever the speed: of torch's process groups
RETRY = 0.3

Resolve = Callable[[str], Awaitable[str]]  # a host name to an address; empty while nobody has it


class Rendezvous:
    """One engine's side of it. `lost` is done once a partner is gone."""

    def __init__(self, ip: str, args: EngineArgs, resolve: Resolve) -> None:
        self.ip = ip
        self.args = args
        self.resolve = resolve
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._here: dict[int, asyncio.StreamWriter] = {}
        self._complete = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._watching: set[asyncio.Task[None]] = set()

    async def meet(self) -> None:
        """Return once every node's engine is there; TimeoutError when they do not come."""
        async with asyncio.timeout(PATIENCE):
            if self.args.node_rank == 0:
                await self._wait()
            else:
                await self._join()

    def close(self) -> None:
        """Let go of the others."""
        for task in self._watching:
            task.cancel()
        for writer in self._here.values():
            writer.close()
        if self._server is not None:
            self._server.close()

    async def _wait(self) -> None:
        self._server = await asyncio.start_server(self._take, self.ip, self.args.master[1])
        await self._complete.wait()
        for writer in self._here.values():
            writer.write(b"go\n")

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if not line.strip().isdigit():
            writer.close()
            return
        self._here[int(line)] = writer
        self._watch(reader)
        if len(self._here) == self.args.nodes - 1:
            self._complete.set()

    async def _join(self) -> None:
        host, port = self.args.master
        while True:
            try:
                address = await self.resolve(host)
                reader, writer = await asyncio.open_connection(address, port) if address else (None, None)
            except OSError:
                reader, writer = None, None
            if reader is not None and writer is not None:
                self._here[0] = writer
                writer.write(f"{self.args.node_rank}\n".encode())
                if await reader.readline() == b"go\n":
                    self._watch(reader)
                    return
                writer.close()  # the leader began anew
            await asyncio.sleep(RETRY)

    def _watch(self, reader: asyncio.StreamReader) -> None:
        async def until_gone() -> None:
            with contextlib.suppress(OSError):
                while await reader.read(64):
                    pass
            if not self.lost.done():
                self.lost.set_result(None)

        task = asyncio.create_task(until_gone())
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
