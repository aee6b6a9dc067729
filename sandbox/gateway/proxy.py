"""Passes a request on to a pod and the answer back, both unbuffered; a caller who leaves ends the work upstream."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx

from sandbox.asgi import Answer, Receive, Scope, Send, json_answer, send_answer, text_answer
from sandbox.gateway.authorization import Authorizer, Decision
from sandbox.gateway.cluster import Cluster
from sandbox.gateway.endpoints import Balancer, Endpoint
from sandbox.gateway.metrics import CONTENT_TYPE, Metrics
from sandbox.gateway.routes import Rule, changed_headers, find, rewritten, safe_path

log = logging.getLogger(__name__)

PREFILLER = "x-prefiller-host-port"  # where the routing sidecar has the prompt computed; never the caller's to say
ATTEMPTS = 3  # pods tried while none has accepted the connection
CONNECT_SECONDS = 5.0
RETRY_AFTER = "5"
# Of one connection only (RFC 9110, 7.6.1), or ours to set.
_NOT_PASSED_ON = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
    "transfer-encoding", "upgrade", "host", "authorization", "x-request-id", PREFILLER,
}  # fmt: skip
_NOT_PASSED_BACK = _NOT_PASSED_ON | {"server", "date"}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}


class CallerGone(Exception):
    """The caller closed the connection before its answer was complete."""


@dataclass
class Exchange:
    """One request on its way; `started` once part of the answer was sent."""

    scope: Scope
    receive: Receive
    send: Send
    request_id: str
    headers: dict[str, str]
    began: float
    namespace: str = ""
    name: str = ""
    status: int = 0
    started: bool = False
    body_touched: bool = False

    @property
    def raw_path(self) -> str:
        """The path as it came, undecoded and without the query."""
        raw: bytes = self.scope.get("raw_path") or str(self.scope["path"]).encode()
        return raw.split(b"?")[0].decode("latin-1")

    async def answer(self, answer: Answer) -> None:
        """Send a whole answer of the gateway's own."""
        self.started, self.status = True, answer.status
        extra = (*answer.headers, ("x-request-id", self.request_id))
        whole = Answer(answer.status, answer.body, answer.content_type, extra)
        await send_answer(self.send, whole, head=self.scope["method"] == "HEAD")

    async def refuse(self, status: int, code: str, message: str, **headers: str) -> None:
        """Send an error as OpenAI spells them."""
        kind = _KINDS.get(status, "server_error")
        error = {"message": message, "type": kind, "param": None, "code": code}
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        await self.answer(json_answer({"error": error}, status, spelled))


class Gateway:
    """The ASGI application."""

    def __init__(self, cluster: Cluster, authorizer: Authorizer | None, http: httpx.AsyncClient | None = None) -> None:
        self._cluster = cluster
        self._authorizer = authorizer
        self._balancer = Balancer()
        self._metrics = Metrics()
        self._http = http or httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=200, keepalive_expiry=15.0),
            trust_env=False,
            follow_redirects=False,
        )

    async def close(self) -> None:
        """Close all connections to pods and to the authority."""
        await self._http.aclose()
        if self._authorizer is not None:
            await self._authorizer.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        exchange = Exchange(scope, receive, send, request_id, headers, time.perf_counter())
        try:
            await self._handle(exchange)
        except CallerGone:
            exchange.status = 499
        if exchange.namespace:
            code = str(exchange.status)
            self._metrics.requests.labels(exchange.namespace, exchange.name, code).inc()

    async def _handle(self, exchange: Exchange) -> None:
        path = exchange.raw_path
        if path == "/healthz":
            ready = self._cluster.ready()
            await exchange.answer(text_answer("ok" if ready else "the cluster was not seen yet", 200 if ready else 503))
            return
        if path == "/metrics":
            text = self._metrics.text().decode()
            await exchange.answer(text_answer(text, content_type=CONTENT_TYPE))
            return
        if not safe_path(path):
            await exchange.refuse(400, "invalid_path", "The path has segments that lead elsewhere.")
            return
        host = exchange.headers.get("host", "").rpartition("@")[2].split(":")[0].lower()
        rule = find(self._cluster.rules(), host, path, exchange.scope["method"], exchange.headers)
        if rule is None:
            await exchange.refuse(404, "no_route", "No model is served under this address.")
            return
        exchange.namespace, exchange.name = rule.namespace, self._cluster.model_name(rule)
        decision = await self._decide(exchange)
        if decision.status == 503:
            await exchange.refuse(503, "authorization_unavailable", decision.message, retry_after=RETRY_AFTER)
        elif decision.status != 200:
            code = {401: "invalid_api_key", 403: "not_permitted"}.get(decision.status, "refused")
            await exchange.refuse(decision.status, code, decision.message)
        else:
            await self._pass_on(exchange, rule)

    async def _decide(self, exchange: Exchange) -> Decision:
        if self._authorizer is None:
            return Decision(200)
        return await self._authorizer.decide(
            exchange.namespace,
            exchange.name,
            str(exchange.scope["path"]),
            str(exchange.scope["method"]),
            exchange.headers.get("authorization"),
        )

    async def _pass_on(self, exchange: Exchange, rule: Rule) -> None:
        endpoints = self._balancer.backend([(item, self._cluster.endpoints(item)) for item in rule.backends])
        if not endpoints:
            await exchange.refuse(503, "no_endpoint", "no endpoint is ready", retry_after=RETRY_AFTER)
            return
        with self._metrics.in_flight.track_inprogress():
            try:
                async with asyncio.timeout(rule.timeout):
                    await self._try_each(exchange, rule, list(endpoints))
            except TimeoutError:
                if exchange.started:
                    raise
                await exchange.refuse(504, "upstream_timeout", "The model did not answer in time.")

    async def _try_each(self, exchange: Exchange, rule: Rule, endpoints: list[Endpoint]) -> None:
        """Try pods until one takes the connection; a request whose body was touched is never sent twice."""
        for attempt in range(1, ATTEMPTS + 1):
            endpoint = self._balancer.pick(endpoints)
            try:
                with self._balancer.occupied(endpoint), self._balancer.prefilling(endpoint) as prefiller:
                    await self._exchange(exchange, rule, endpoint, prefiller)
            except httpx.HTTPError as error:
                log.info("%s: %s: %s", exchange.request_id, endpoint.pod, error or type(error).__name__)
                if exchange.started:
                    raise  # the server cuts the connection: the caller must see that the answer is not whole
                endpoints.remove(endpoint)
                again = isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) and not exchange.body_touched
                if again and endpoints and attempt < ATTEMPTS:
                    continue
                await exchange.refuse(502, "upstream_failed", "The model's server broke off the connection.")
            return

    async def _exchange(self, exchange: Exchange, rule: Rule, endpoint: Endpoint, prefiller: Endpoint | None) -> None:
        """Send the request to one pod and the answer back, while watching for the caller to leave."""
        body_sent = asyncio.Event()
        work = asyncio.ensure_future(self._forward(exchange, rule, endpoint, prefiller, body_sent))
        watch = asyncio.ensure_future(_until_gone(exchange, body_sent))
        try:
            await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise CallerGone
            work.result()
        finally:
            for task in (work, watch):
                task.cancel()
            await asyncio.gather(work, watch, return_exceptions=True)

    async def _forward(
        self,
        exchange: Exchange,
        rule: Rule,
        endpoint: Endpoint,
        prefiller: Endpoint | None,
        body_sent: asyncio.Event,
    ) -> None:
        query: bytes = exchange.scope["query_string"]
        path = rewritten(rule, exchange.raw_path) + (f"?{query.decode('latin-1')}" if query else "")
        passed = [(name, value) for name, value in _header_list(exchange.scope) if name not in _NOT_PASSED_ON]
        passed = changed_headers(rule, passed, "RequestHeaderModifier")
        passed.append(("x-request-id", exchange.request_id))
        if prefiller is not None:
            passed.append((PREFILLER, f"{prefiller.host}:{prefiller.port}"))
        has_body = "content-length" in exchange.headers or "transfer-encoding" in exchange.headers
        if not has_body:
            body_sent.set()
        request = self._http.build_request(
            exchange.scope["method"],
            f"http://{endpoint.host}:{endpoint.port}{path}",
            headers=passed,
            content=_body(exchange, body_sent) if has_body else None,
        )
        answer = await self._http.send(request, stream=True)
        try:
            await self._pass_back(exchange, rule, answer)
        finally:
            await answer.aclose()

    async def _pass_back(self, exchange: Exchange, rule: Rule, answer: httpx.Response) -> None:
        headers = [(name.lower(), value) for name, value in answer.headers.multi_items()]
        headers = [(name, value) for name, value in headers if name not in _NOT_PASSED_BACK]
        headers = changed_headers(rule, headers, "ResponseHeaderModifier")
        headers.append(("x-request-id", exchange.request_id))
        exchange.started, exchange.status = True, answer.status_code
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        await exchange.send({"type": "http.response.start", "status": answer.status_code, "headers": encoded})
        elapsed = time.perf_counter() - exchange.began
        self._metrics.first_byte.labels(exchange.namespace, exchange.name).observe(elapsed)
        async for chunk in answer.aiter_raw():
            await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})
        await exchange.send({"type": "http.response.body", "body": b""})


def _header_list(scope: Scope) -> list[tuple[str, str]]:
    return [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]


async def _body(exchange: Exchange, sent: asyncio.Event) -> AsyncIterator[bytes]:
    exchange.body_touched = True
    while True:
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise CallerGone
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            sent.set()
            return


async def _until_gone(exchange: Exchange, body_sent: asyncio.Event) -> None:
    """Return when the caller has left; the body, while it still comes, is read by the request itself."""
    await body_sent.wait()
    while (await exchange.receive())["type"] != "http.disconnect":
        continue
