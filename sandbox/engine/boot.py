"""Starting an engine: from the container's words to a server, with vLLM's own lines on the way.

Every check is a real one: the flags, the model's configuration, the GPUs the pod was given and their memory.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from sandbox.engine import args as cli
from sandbox.engine import errors, known, memory, shape
from sandbox.engine.args import EngineArgs
from sandbox.engine.builds import NEWEST, Build
from sandbox.engine.loglines import EngineLog
from sandbox.engine.memory import Limits, MemoryPlan
from sandbox.engine.shape import ModelShape
from sandbox.nodes import GIB, Gpu

log = logging.getLogger(__name__)

MODEL_DIR = "/mnt/models"
# Seconds at speed 1 of the parts of a start; weights take longer the larger they are.
IMPORT_SECONDS, CORE_SECONDS, GRAPH_SECONDS = 8.0, 6.0, 8.0
LOAD_SECONDS, LOAD_MOST_GIB = (4.0, 24.0), 140.0
# Compute capability that a quantisation needs (vLLM get_min_capability).
# The method that vLLM takes for weights stored under another name.
STORED_AS = {"auto-round": "inc"}
MIN_CAPABILITY = {"awq": 75, "awq_marlin": 75, "gptq": 60, "fp8": 75, "compressed-tensors": 75, "modelopt": 89}


@dataclass(frozen=True)
class ModelFiles:
    """A model as it lies in a directory: configuration and sizes of files in bytes."""

    config: Mapping[str, object]
    files: Mapping[str, int]


@dataclass(frozen=True)
class Machine:
    """What the container has: GPUs of one kind, a limit on host memory in bytes (None = no limit), and its image."""

    gpu: Gpu
    gpus: int
    memory_limit: int | None
    environment: Mapping[str, str]
    build: Build = NEWEST


@dataclass(frozen=True)
class Ready:
    """An engine that has started."""

    args: EngineArgs
    shape: ModelShape
    memory: MemoryPlan
    limits: Limits
    context: int


EAGER_TEXT = (
    "Enforce eager set, disabling torch.compile, CUDAGraphs, and JIT kernel warmup. This is equivalent to setting "
    "-cc.mode=none -cc.cudagraph_mode=none and --kernel_config.enable_jit_warmup=False"
)


class OutOfMemory(Exception):
    """The kernel killed the container: host memory over its limit."""


FetchModel = Callable[[str, Mapping[str, str]], Awaitable[ModelFiles | None]]
Sleep = Callable[[float], Awaitable[None]]
Meet = Callable[[EngineArgs], Awaitable[None]]


class Boot:
    """One start of one engine. `sleep` takes seconds at speed 1; `fetch` reads a directory or the hub.

    `meet` waits for the engines of the other nodes.
    """

    def __init__(self, machine: Machine, lines: EngineLog, sleep: Sleep, fetch: FetchModel, meet: Meet) -> None:
        self.machine = machine
        self.lines = lines
        self.sleep = sleep
        self.fetch = fetch
        self.meet = meet
        self.held = 0  # bytes on each GPU so far

    async def run(self, command: Sequence[str], arguments: Sequence[str]) -> Ready:
        """Start; raises EngineExit as vLLM ends, OutOfMemory, or LookupError for words that are not vLLM's."""
        build = self.machine.build
        args = cli.parse(command, arguments, build.version)
        await self.sleep(IMPORT_SECONDS)
        self.lines.logo(args.model, build.version)
        self.lines.api("api_utils.py:286", f"non-default args: {args.non_default}")
        known.check_parsers(args, build)
        model = await self._model(args)
        context, limits = self._configure(args, model)
        await self._start_core(args, model, context)
        if args.nodes > 1:
            await self.meet(args)
        plan = await self._load(args, model, limits, context)
        context = self._report(args, plan, model, limits, context)
        await self._warm_up(args, plan)
        for name, path in args.adapters:
            await self._lay_over(args, name, path)
        if not args.headless:
            self._serve(args)
        return Ready(args, model, plan, limits, context)

    async def _model(self, args: EngineArgs) -> ModelShape:
        found = await self.fetch(args.model, self.machine.environment)
        if found is None:
            raise errors.model_config_error(
                f"Invalid repository ID or local directory specified: '{args.model}'.\n"
                "Please verify the following requirements:\n"
                "1. Provide a valid Hugging Face repository ID.\n"
                "2. Specify a local directory that contains a recognized configuration file.\n"
                "   - For Hugging Face models: ensure the presence of a 'config.json'.\n"
                "   - For Mistral models: ensure the presence of a 'params.json'.\n"
            )
        self._check_gguf(args, found)
        if "config.json" in found.files:
            trusted = bool(args.non_default.get("trust_remote_code"))
            known.check_model(args.model, {**found.config, **args.hf_overrides}, self.machine.build, trusted=trusted)
        model = shape.read({**found.config, **args.hf_overrides}, found.files)
        self.lines.api("model.py:733", f"Resolved architecture: {model.architecture}")
        return model

    def _check_gguf(self, args: EngineArgs, found: ModelFiles) -> None:
        """A file is looked at before anything else, as configuration where nothing knows what GGUF is."""
        described = "config.json" in found.files
        file = args.model.endswith(".gguf") or (not described and any(name.endswith(".gguf") for name in found.files))
        build = self.machine.build
        if file and not build.reads_gguf:
            text = f"It looks like the config file at '{args.model}' is not a valid JSON file."
            raise errors.plain_error(f"OSError: {text}")
        if file and build.needs_config and not described:
            folder = args.model.rpartition("/")[0]
            raise errors.plain_error(
                f"OSError: {folder} does not appear to have a file named config.json. Checkout "
                f"'https://huggingface.co/{folder}/tree/main' for available files."
            )

    def _configure(self, args: EngineArgs, model: ModelShape) -> tuple[int, Limits]:
        """The checks of ModelConfig, CacheConfig and VllmConfig, in vLLM's order."""
        context = self._context(args, model)
        self.lines.api("model.py:2152", f"Using max model len {context}")
        cli.check_ranges(args)
        limits = memory.limits(args, self.machine.gpu)
        if args.chunked_prefill:
            text = f"Chunked prefill is enabled with max_num_batched_tokens={limits.max_num_batched_tokens}."
            self.lines.api("scheduler.py:307", text)
        self._check_limits(args, limits, context)
        self._check_quantization(args, model)
        self._check_parallel(args, model)
        if args.enforce_eager:
            self.lines.api("vllm.py:1703", EAGER_TEXT, "WARNING")
        return context, limits

    def _context(self, args: EngineArgs, model: ModelShape) -> int:
        asked = args.max_model_len
        if asked is None or asked == -1:
            return model.context
        if asked > model.context and self.machine.environment.get("VLLM_ALLOW_LONG_MAX_MODEL_LEN") != "1":
            derived = f"{model.context_key}={float(model.context)} or model_max_length=None"
            raise errors.model_config_error(
                f"User-specified max_model_len ({asked}) is greater than the derived max_model_len ({derived} in "
                "model's config.json). To allow overriding this maximum, set the env var "
                "VLLM_ALLOW_LONG_MAX_MODEL_LEN=1. VLLM_ALLOW_LONG_MAX_MODEL_LEN must be used with extreme caution. "
                "If the model uses relative position encoding (RoPE), positions exceeding derived_max_model_len "
                "lead to nan. If the model uses absolute position encoding, positions exceeding "
                "derived_max_model_len will cause a CUDA array out-of-bounds error."
            )
        return asked

    def _check_limits(self, args: EngineArgs, limits: Limits, context: int) -> None:
        batched = limits.max_num_batched_tokens
        if batched < limits.max_num_seqs:
            raise errors.engine_config_error(
                f"max_num_batched_tokens ({batched}) must be greater than or equal to max_num_seqs "
                f"({limits.max_num_seqs})."
            )
        if not args.chunked_prefill and batched < context:
            raise errors.engine_config_error(
                f"max_num_batched_tokens ({batched}) is smaller than max_model_len ({context}). This effectively "
                "limits the maximum sequence length to max_num_batched_tokens and makes vLLM reject longer sequences. "
                "Please increase max_num_batched_tokens or decrease max_model_len."
            )

    def _check_quantization(self, args: EngineArgs, model: ModelShape) -> None:
        asked = args.quantization
        if asked in ("awq", "gptq", "awq_marlin", "gptq_marlin") and model.quantization is None:
            raise errors.engine_config_error(f"Cannot find the config file for {asked.removesuffix('_marlin')}")
        method = asked or model.quantization
        methods = self.machine.build.methods
        if method is not None and STORED_AS.get(method, method) not in methods:
            raise errors.model_config_error(f"Unknown quantization method: {method}. Must be one of {methods}.")
        major, minor = self.machine.gpu.compute
        needed = MIN_CAPABILITY.get(method or "", 0)
        if major * 10 + minor < needed:
            raise errors.engine_config_error(
                f"The quantization method {method} is not supported for the current GPU. Minimum capability: {needed}. "
                f"Current capability: {major * 10 + minor}."
            )

    def _check_parallel(self, args: EngineArgs, model: ModelShape) -> None:
        size = args.tensor_parallel
        if model.heads % size:
            raise errors.engine_config_error(
                f"Total number of attention heads ({model.heads}) must be divisible by tensor parallel size ({size})."
            )
        world = size * args.pipeline_parallel
        if world * args.data_parallel_local > self.machine.gpus * args.nodes:
            raise errors.engine_config_error(
                f"World size ({world}) is larger than the number of available GPUs ({self.machine.gpus}) in this node. "
                "If this is intentional and you are using:\n- ray, set '--distributed-executor-backend ray'.\n"
                "- multiprocessing, set '--nnodes' appropriately."
            )

    async def _start_core(self, args: EngineArgs, model: ModelShape, context: int) -> None:
        await self.sleep(CORE_SECONDS)
        dtype = memory.compute_dtype(args, model)
        self.lines.core("core.py:133", f"Initializing a V1 LLM engine (v{self.machine.build.version}) with config: "
            f"model='{args.model}', speculative_config=None, tokenizer='{args.model}', dtype=torch.{dtype}, "
            f"max_seq_len={context}, "
            f"load_format=auto, tensor_parallel_size={args.tensor_parallel}, "
            f"pipeline_parallel_size={args.pipeline_parallel}, data_parallel_size={args.data_parallel}, "
            f"quantization={args.quantization or model.quantization}, enforce_eager={args.enforce_eager}, "
            f"kv_cache_dtype={args.kv_cache_dtype}, device_config=cuda, served_model_name={args.served_names[0]}, "
            f"enable_prefix_caching={args.prefix_caching}, enable_chunked_prefill={args.chunked_prefill}")  # fmt: skip
        for rank in self._ranks(args):
            number = rank or 0
            text = f"rank {number} in world size {args.tensor_parallel} is assigned as DP rank 0, PP rank 0, "
            text += f"PCP rank 0, TP rank {number}, EP rank N/A, EPLB rank N/A"
            self.lines.worker("parallel_state.py:2350", text, rank=rank)

    async def _load(self, args: EngineArgs, model: ModelShape, limits: Limits, context: int) -> MemoryPlan:
        """Load weights and size the KV cache; raises what vLLM raises when either does not fit."""
        plan = memory.plan(args, model, self.machine.gpu, context)
        limit = self.machine.memory_limit
        ranks = self._ranks(args)
        for rank in ranks:
            self.lines.worker("gpu_model_runner.py:5120", f"Starting to load model {args.model}...", rank=rank)
        if limit is not None and limit < host_memory_needed(len(ranks)):
            await self.sleep(2.0)
            raise OutOfMemory
        checkpoint = model.weight_bytes / GIB
        text = (
            f"Filesystem type for checkpoints: EXT4. Checkpoint size: {checkpoint:.2f} GiB. Available RAM: 256.00 GiB."
        )
        self.lines.worker("weight_utils.py:1108", text, rank=ranks[0])
        if plan.weights > plan.total:
            raise errors.core_error(_cuda_oom(plan), self.lines.core_prefix(), while_loading=True)
        seconds = LOAD_SECONDS[0] + LOAD_SECONDS[1] * min(1.0, checkpoint / LOAD_MOST_GIB)
        await self._load_shards(model.checkpoint_files, seconds, plan.weights)
        for rank in ranks:
            self.lines.worker("default_loader.py:501", f"Loading weights took {seconds:.2f} seconds", rank=rank)
            text = f"Model loading took {plan.weights / GIB:.2f} GiB memory and {seconds + 0.6:.6f} seconds"
            self.lines.worker("gpu_model_runner.py:5203", text, rank=rank)
        return plan

    async def _load_shards(self, shards: int, seconds: float, weights: int) -> None:
        head = "Loading safetensors checkpoint shards: "
        step = max(1, shards // 5)
        self.lines.write("")
        for done in range(0, shards + 1, step) if shards % step == 0 else [*range(0, shards, step), shards]:
            if done:
                await self.sleep(seconds * min(step, done) / shards)
            self.held = weights * done // max(1, shards)
            rate = f"{done / seconds:5.2f}it/s" if done else "?it/s"
            share = f"{100 * done // max(1, shards):3d}% Completed | {done}/{shards}"
            self.lines.write(f"{head}{share} [00:{int(seconds * done / max(1, shards)):02d}<00:00, {rate}]")
        self.lines.write("")

    def _report(self, args: EngineArgs, plan: MemoryPlan, model: ModelShape, limits: Limits, context: int) -> int:
        """Print what is left for the KV cache and return the context; raises when one request does not fit."""
        available = plan.kv_available / GIB
        for rank in self._ranks(args):
            self.lines.worker("gpu_worker.py:497", f"Available KV cache memory: {available:.2f} GiB", rank=rank)
        if plan.kv_available <= 0:
            raise errors.core_error(
                "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
                "initializing the engine. See https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more "
                "details.",
                self.lines.core_prefix(),
            )
        if args.max_model_len == -1:
            fitting = memory.largest_context(args, model, plan, limits.max_num_batched_tokens)
            if fitting < context:
                self.lines.core(
                    "kv_cache_utils.py:2310", f"Auto-fit max_model_len: reduced from {context} to {fitting}"
                )
                context = fitting
        needed = memory.kv_bytes_needed(args, model, context, limits.max_num_batched_tokens)
        if needed > plan.kv_available:
            most = memory.largest_context(args, model, plan, limits.max_num_batched_tokens)
            raise errors.core_error(
                f"ValueError: To serve at least one request with the model's max seq len ({context}), "
                f"({needed / GIB:.2f} GiB KV cache is needed, which is larger than the available KV cache memory "
                f"({round(available, 2)} GiB). Based on the available memory, the estimated maximum model length is "
                f"{most}. Try increasing `gpu_memory_utilization` (which also controls CPU memory on the CPU backend) "
                "or decreasing `max_model_len` when initializing the engine. See "
                "https://docs.vllm.ai/en/latest/configuration/conserving_memory/ for more details.",
                self.lines.core_prefix(),
            )
        text = f"GPU KV cache size: {plan.tokens:,} tokens, Maximum concurrency for {context:,} tokens per request: "
        self.lines.core("kv_cache_utils.py:2327", f"{text}{plan.tokens / context:.2f}x")
        return context

    async def _warm_up(self, args: EngineArgs, plan: MemoryPlan) -> None:
        await self.sleep(GRAPH_SECONDS / (2 if args.enforce_eager else 1))
        if not args.enforce_eager:
            for rank in self._ranks(args):
                text = f"Graph capturing finished in {GRAPH_SECONDS:.0f} secs, took {plan.graphs / GIB:.2f} GiB"
                self.lines.worker("gpu_model_runner.py:6391", text, rank=rank)
        took = GRAPH_SECONDS + 2.0
        self.lines.core("core.py:402", f"init engine (profile, create kv cache, warmup model) took {took:.2f} s")

    async def _lay_over(self, args: EngineArgs, name: str, path: str) -> None:
        """Load one adapter; raises what vLLM raises when it is none, or wider than the engine has room for."""
        found = await self.fetch(path, self.machine.environment)
        if found is None or "r" not in found.config:
            raise errors.adapter_error(f"ValueError: Loading lora {name} failed: No adapter found for {path}")
        rank = int(str(found.config["r"]))
        if rank > args.max_lora_rank:
            raise errors.adapter_error(
                f"ValueError: LoRA rank {rank} is greater than max_lora_rank {args.max_lora_rank}."
            )
        self.lines.api("serving.py:201", f"Loaded new LoRA adapter: name '{name}', path '{path}'")

    def _serve(self, args: EngineArgs) -> None:
        self.lines.api("entry.py:136", "Supported tasks: ['generate']")
        self.lines.api("entry.py:140", f"Starting vLLM server on http://{args.host}:{args.port}")
        self.lines.api("launcher.py:186", "Available routes are:")
        for route, methods in ROUTES:
            self.lines.api("launcher.py:195", f"Route: {route}, Methods: {methods}")
        for text in ("Started server process [1]", "Waiting for application startup.", "Application startup complete."):
            self.lines.write(f"INFO:     {text}")

    def _ranks(self, args: EngineArgs) -> list[int | None]:
        """Those of this node."""
        world = args.tensor_parallel * args.pipeline_parallel
        own = max(1, world // args.nodes)
        return [None] if world == 1 else list(range(args.node_rank * own, (args.node_rank + 1) * own))


ROUTES = (
    ("/load", "GET"), ("/version", "GET"), ("/health", "GET"), ("/metrics", "GET"), ("/tokenize", "POST"),
    ("/v1/models", "GET"), ("/ping", "GET"), ("/v1/chat/completions", "POST"), ("/v1/completions", "POST"),
)  # fmt: skip


def host_memory_needed(ranks: int) -> int:
    """Host memory that the processes of an engine take, in bytes."""
    return int((1.8 + 1.2 * ranks) * GIB)


def _cuda_oom(plan: MemoryPlan) -> str:
    free = 0.31
    return (
        f"torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.02 GiB. GPU 0 has a total capacity of "
        f"{plan.total / GIB:.2f} GiB of which {free:.2f} GiB is free. Including non-PyTorch memory, this process has "
        f"{plan.total / GIB - free:.2f} GiB memory in use. Of the allocated memory {plan.total / GIB - 0.9:.2f} GiB "
        "is allocated by PyTorch, and 22.04 MiB is reserved by PyTorch but unallocated. If reserved but unallocated "
        "memory is large try setting PYTORCH_CUDA_ALLOC_CONF=expandable_segments:True to avoid fragmentation. See "
        "documentation for Memory Management (https://pytorch.org/docs/stable/notes/cuda.html#environment-variables)"
    )
