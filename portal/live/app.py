"""Where the streams' addresses lead. Everything else of the site is Django's."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Awaitable, Callable

import orjson

from portal.lib.problems import MEDIA_TYPE, entry, problem
from portal.live import prompt
from portal.live.authorize import OPEN, PREFIX, authorize, authorize_open, authorize_request
from portal.live.callers import caller_of
from portal.live.database import in_database
from portal.live.http import (
    Gone,
    Message,
    Receive,
    Refused,
    Scope,
    Send,
    body_of,
    event,
    query_of,
    send_bytes,
    send_json,
    send_stream,
)
from portal.live.hub import PREFIX as DEPLOYMENT
from portal.live.hub import Hub
from portal.live.logs import LogReader
from portal.live.permission import NOTHING, hearers, reaches
from portal.live.places import Places
from portal.live.usage import DATABASE_AWAY, Tally, usage_report
from portal.live.usage import PATH as USAGE

logger = logging.getLogger(__name__)

RETRY = [(b"retry-after", b"5")]
PROMPTS_PER_USER = 4
QUESTIONS = 500
NOT_YOURS = "Your session has ended, or you may not see this deployment any more."
PROMPT = re.compile(r"/live/prompt/([0-9]{1,12})/")
LOGS = re.compile(r"/live/logs/([0-9]{1,12})/(follow/)?")
API_LOGS = re.compile(r"/api/v1/deployments/([0-9]{1,12})/logs/")

Handler = Callable[[Scope, Receive, Send], Awaitable[None]]


class LiveApp:
    """The ASGI application of the streams."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.pages = Places()
        self.prompts = Places(per_user=PROMPTS_PER_USER, per_process=200)
        self.questions = Places(per_user=QUESTIONS, per_process=QUESTIONS)
        self.reader = LogReader()
        self.tally = Tally()

    @staticmethod
    def serves(path: str) -> bool:
        """True for the addresses that belong here."""
        return path.startswith("/live/") or API_LOGS.fullmatch(path) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._route(scope)(scope, receive, noted)
        except Refused as refused:
            await _refuse(scope, send, refused)
        except Gone:
            return
        except DATABASE_AWAY as error:
            logger.warning("live: database away: %s", error)
            away = Refused(503, "unavailable", "Slipway cannot reach its database just now.", headers=RETRY)
            await _refuse(scope, send, away)
        except Exception:
            if begun:
                raise
            logger.exception("live: %s failed", scope["path"])
            await _refuse(scope, send, Refused(500, "internal", "Something broke in Slipway."))

    async def lifespan(self, receive: Receive, send: Send) -> None:
        """Answer the server's start and stop; on stop the tasks end first."""
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self.hub.stop()
                await self.tally.stop()
                await send({"type": "lifespan.shutdown.complete"})
                return

    def _route(self, scope: Scope) -> Handler:
        path, method = scope["path"], scope["method"]
        if path == "/live/status/":
            return _only(method, {"GET"}, self._status)
        if path == PREFIX and method == "POST":
            return self._held(self._authorize)
        if path.startswith(PREFIX):
            # Any method: it is the caller's.
            return self._held(self._authorize_request)
        if path == OPEN:
            return _only(method, {"POST"}, self._held(authorize_open))
        if path == USAGE:
            return _only(method, {"POST"}, self._held(usage_report))
        if PROMPT.fullmatch(path):
            return _only(method, {"POST"}, self._prompt)
        if LOGS.fullmatch(path) or API_LOGS.fullmatch(path):
            return _only(method, {"GET"}, self._logs)
        raise Refused(404, "not_found", "There is nothing here.")

    def _held(self, handler: Handler) -> Handler:
        """Nobody has signed in yet here: so many questions at a time, whoever asks."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            with self.questions.one(0):
                await handler(scope, receive, send)

        return answer

    async def _authorize(self, scope: Scope, receive: Receive, send: Send) -> None:
        await authorize(scope, receive, send, self.tally)

    async def _authorize_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        await authorize_request(scope, receive, send, self.tally)

    async def _status(self, scope: Scope, receive: Receive, send: Send) -> None:
        caller = await in_database(caller_of, scope)
        made = query_of(scope, "made").get("made", "")
        with self.pages.one(caller.user_id):
            reach = (await in_database(reaches, {caller.user_id})).get(caller.user_id, NOTHING)
            stream, missed = self.hub.open(caller, made_at=_seconds(made), reach=reach)
            try:
                if missed:
                    heard = await in_database(hearers, missed, {caller.user_id})
                    stream.offer(f"{DEPLOYMENT}{pk}" for pk in heard.get(caller.user_id, set()))
                await send_stream(receive, send, stream.events())
            finally:
                self.hub.close(stream)

    async def _prompt(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = PROMPT.fullmatch(scope["path"])
        assert found is not None
        caller = await in_database(caller_of, scope, csrf=True)
        query_of(scope)
        wish = prompt.wish_of(await body_of(receive, most=prompt.MOST_BODY))
        url, model, token = await in_database(prompt.target_of, caller, int(found.group(1)))
        pk = int(found.group(1))
        with self.prompts.one(caller.user_id), self.hub.watching(caller, pk) as watch:
            last = event("error", {"message": NOT_YOURS})
            await send_stream(receive, send, prompt.answer(url, model, token, wish), over=watch.over, last=last)

    async def _logs(self, scope: Scope, receive: Receive, send: Send) -> None:
        by_api = API_LOGS.fullmatch(scope["path"])
        by_page = LOGS.fullmatch(scope["path"])
        found = by_api or by_page
        assert found is not None
        caller = await in_database(caller_of, scope, token_allowed=by_api is not None)
        follow = bool(by_page and by_page.group(2))
        pk = int(found.group(1))
        with self.pages.one(caller.user_id):
            if not follow:
                await self.reader.serve(scope, receive, send, caller, pk)
                return
            with self.hub.watching(caller, pk) as watch:
                last = event("end", f"— {NOT_YOURS} —")
                await self.reader.follow(scope, receive, send, caller, pk, over=watch.over, last=last)


async def _refuse(scope: Scope, send: Send, refused: Refused) -> None:
    """A problem document for programs, below /api/; what the scripts of our pages show elsewhere."""
    headers = refused.headers
    if refused.status in {429, 503} and not any(name == b"retry-after" for name, _ in headers):
        headers = (*headers, *RETRY)
    if not API_LOGS.fullmatch(scope["path"]):
        answer = {"code": refused.code, "message": refused.message, "field": refused.field}
        await send_json(send, refused.status, answer, headers)
        return
    request_id = uuid.uuid4().hex
    errors = [entry(refused.pointer, refused.field, refused.message, refused.code)] if refused.pointer else []
    document = problem(
        refused.status,
        refused.code,
        refused.message,
        instance=scope["path"],
        request_id=request_id,
        errors=errors,
    )
    if refused.status >= 500:
        logger.warning("live: %s answered %d %s, request %s", scope["path"], refused.status, refused.code, request_id)
    extra = [*headers, (b"x-request-id", request_id.encode())]
    await send_bytes(send, refused.status, orjson.dumps(document), MEDIA_TYPE.encode(), extra)


def _seconds(milliseconds: str) -> float:
    """A page's moment, from its address; 0 (long ago) when it says none."""
    return (
        int(milliseconds) / 1000
        if milliseconds.isascii() and milliseconds.isdigit() and len(milliseconds) < 15
        else 0.0
    )


def _only(method: str, allowed: set[str], handler: Handler) -> Handler:
    if method not in allowed:
        methods = ", ".join(sorted(allowed))
        raise Refused(405, "method_not_allowed", f"Only {methods} here.", headers=[(b"allow", methods.encode())])
    return handler
