"""The gRPC server that Envoy speaks to, and its way to stop: what is under way may end first."""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import Any

import grpc

from portal.live.usage import Tally
from portal.meter.exchange import Exchange
from portal.meter.wire import ProcessingRequest, ProcessingResponse

logger = logging.getLogger(__name__)

EVERY = 0.25  # seconds in which a key may begin another answer before it is charged with the last
SERVING = b"\x08\x01"  # grpc.health.v1.HealthCheckResponse


class Processor:
    """Envoy's external processor."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    async def process(self, _: Any, context: grpc.aio.ServicerContext) -> None:
        """One request and its answer, each message answered in turn; charged at the end, whoever ended it."""
        exchange = Exchange()
        try:
            while (message := await context.read()) is not grpc.aio.EOF:
                await context.write(exchange.answer(message))
        finally:
            use = exchange.used()
            if use is not None:
                self._tally.used(use)


async def serve(host: str, port: int, *, grace: float) -> None:
    """Answer Envoy until SIGTERM or SIGINT; then `grace` seconds for what is under way, and keep the last counts."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    tally = Tally(every=EVERY)
    server = server_of(tally)
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    logger.info("meter: listening on %s:%d", host, bound)
    await stop.wait()
    await server.stop(grace)
    await tally.stop()


def server_of(tally: Tally) -> grpc.aio.Server:
    """The server, not yet bound nor started."""
    server = grpc.aio.server()
    process = grpc.stream_stream_rpc_method_handler(
        Processor(tally).process,
        request_deserializer=ProcessingRequest.FromString,
        response_serializer=ProcessingResponse.SerializeToString,
    )
    services = {
        "envoy.service.ext_proc.v3.ExternalProcessor": {"Process": process},
        "grpc.health.v1.Health": {"Check": grpc.unary_unary_rpc_method_handler(_healthy)},
    }
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]
    )
    return server


async def _healthy(_: bytes, context: grpc.aio.ServicerContext) -> bytes:
    """The kubelet's question; without serializers a message is its bytes."""
    return SERVING
