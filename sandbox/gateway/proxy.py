"""Passes a request on to a pod and the answer back, both unbuffered; a caller who leaves ends the work upstream."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import httpx

from metering.tokens import Meter
from sandbox.asgi import Receive, Scope, Send, text_answer
from sandbox.gateway.authorization import Authorizer, Decision
from sandbox.gateway.cluster import Cluster
from sandbox.gateway.endpoints import Balancer, Endpoint
from sandbox.gateway.exchange import CallerGone, Exchange, RightLost, read_body, rest_of_body
from sandbox.gateway.metrics import Metrics
from sandbox.gateway.reporting import Reporter
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
_NOT_OF_METERED = {"accept-encoding", "content-length"}
_NOT_PASSED_BACK = _NOT_PASSED_ON | {"server", "date"}


class Gateway:
    """The ASGI application."""

    def __init__(
        self,
        cluster: Cluster,
        authorizer: Authorizer | None,
        http: httpx.AsyncClient | None = None,
        reporter: Reporter | None = None,
    ) -> None:
        self._cluster = cluster
        self._authorizer = authorizer
        self._reporter = reporter
        self._balancer = Balancer()
        # Not answered here: they name every team and model. `metrics` has an address of its own.
        self.metrics = Metrics()
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
        if self._reporter is not None:
            await self._reporter.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        exchange = Exchange.of(scope, receive, send)
        try:
            await self._handle(exchange)
        except CallerGone:
            exchange.status = 499
        except RightLost:
            if exchange.started:
                raise  # the server cuts the connection: the caller must see that the answer is not whole
            await exchange.refuse(401, "invalid_api_key", "The key has ended, or admits to this model no more.")
        if exchange.namespace:
            code = str(exchange.status)
            self.metrics.requests.labels(exchange.namespace, exchange.name, code).inc()

    async def _handle(self, exchange: Exchange) -> None:
        path = exchange.raw_path
        if path == "/healthz":
            ready = self._cluster.ready()
            await exchange.answer(text_answer("ok" if ready else "the cluster was not seen yet", 200 if ready else 503))
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
        elif decision.status == 429:
            wait = str(decision.retry_after)
            await exchange.refuse(429, "rate_limit_exceeded", decision.message, decision.limit, retry_after=wait)
        elif decision.status != 200:
            code = {401: "invalid_api_key", 403: "not_permitted"}.get(decision.status, "refused")
            await exchange.refuse(decision.status, code, decision.message)
        elif self._reporter is None or decision.key is None or decision.deployment is None:
            await self._pass_on(exchange, rule)
        else:
            await self._pass_on_metered(exchange, rule, decision.key, decision.deployment)

    async def _pass_on_metered(self, exchange: Exchange, rule: Rule, key: int, deployment: int) -> None:
        """Pass a request of a key on and report what it took, however it ends."""
        assert self._reporter is not None
        exchange.meter = Meter()
        try:
            await read_body(exchange)
            await self._pass_on(exchange, rule)
        finally:
            # Of an engine's refusal nothing was computed; of a caller who left, what had come.
            computed = exchange.status < 400 and exchange.scope["method"] == "POST"
            prompt, made = exchange.meter.tokens(exchange.sent_bytes) if computed else (0, 0)
            self._reporter.add(key, deployment, prompt_tokens=prompt, completion_tokens=made)

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
        with self.metrics.in_flight.track_inprogress():
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
        with self._right_of(exchange) as lost:
            try:
                await asyncio.wait({work, watch, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not work.done():
                    raise CallerGone if watch.done() else RightLost
                work.result()
            finally:
                for task in (work, watch):
                    task.cancel()
                await asyncio.gather(work, watch, return_exceptions=True)

    def _right_of(self, exchange: Exchange) -> contextlib.AbstractContextManager[asyncio.Future[None]]:
        """While this lasts, the future is done once the caller may not have the answer any more."""
        if self._authorizer is None:
            return contextlib.nullcontext(asyncio.get_running_loop().create_future())
        header = exchange.headers.get("authorization", "")
        return self._authorizer.open.one(header, exchange.namespace, exchange.name)

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
        content: bytes | AsyncIterator[bytes] | None = None
        if exchange.meter is not None:
            # Only an answer that is not packed can be read; and the body may be another.
            passed = [(name, value) for name, value in passed if name not in _NOT_OF_METERED]
            passed.append(("accept-encoding", "identity"))
        if exchange.body is not None:
            content = exchange.body
        elif exchange.has_body:
            content = rest_of_body(exchange, body_sent)
            if exchange.meter is not None and "content-length" in exchange.headers:
                passed.append(("content-length", exchange.headers["content-length"]))
        if exchange.body is not None or not exchange.has_body:
            body_sent.set()
        request = self._http.build_request(
            exchange.scope["method"],
            f"http://{endpoint.host}:{endpoint.port}{path}",
            headers=passed,
            content=content,
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
        self.metrics.first_byte.labels(exchange.namespace, exchange.name).observe(elapsed)
        meter = exchange.meter
        if meter is None:
            async for chunk in answer.aiter_raw():
                await exchange.send({"type": "http.response.body", "body": chunk, "more_body": True})
            await exchange.send({"type": "http.response.body", "body": b""})
            return
        exchange.meter = meter = Meter(
            content_type=answer.headers.get("content-type", ""),
            encoding=answer.headers.get("content-encoding", ""),
            hide=exchange.hide_usage,
        )
        async for chunk in answer.aiter_raw():
            if passed := meter.feed(chunk):
                await exchange.send({"type": "http.response.body", "body": passed, "more_body": True})
        await exchange.send({"type": "http.response.body", "body": meter.end()})


def _header_list(scope: Scope) -> list[tuple[str, str]]:
    return [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in scope["headers"]]


async def _until_gone(exchange: Exchange, body_sent: asyncio.Event) -> None:
    """Return when the caller has left; the body, while it still comes, is read by the request itself."""
    await body_sent.wait()
    while (await exchange.receive())["type"] != "http.disconnect":
        continue
