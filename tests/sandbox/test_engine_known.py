"""An engine of the sandbox has the parsers and the models of its version, and ends for the rest as the real one."""

import asyncio
import json
from pathlib import Path

import pytest

from deployments.kube.log_causes import from_log
from deployments.kube.reasons import Code
from sandbox.engine.boot import ModelFiles
from sandbox.engine.builds import Build
from tests.sandbox.engine_support import QWEN_7B, files_of, run_engine

ROOT = Path(__file__).parents[2]
OWN_CODE = {"AutoConfig": "configuration_odd.OddConfig", "AutoModelForCausalLM": "modeling_odd.OddForCausalLM"}


def start(*words, **config):
    """Run an engine on Qwen2.5 with some of its configuration changed; exit status and log."""
    files = files_of(QWEN_7B)
    build = config.pop("build", Build())
    found = ModelFiles({**files.config, **config}, {**files.files, "config.json": 600})

    async def nothing(process, http):
        return None

    return asyncio.run(run_engine(["--port=8080", *words], ip="127.77.8.1", found=found, build=build, until=nothing))


def test_what_it_knows_is_what_the_wheel_of_its_version_has():
    known = json.loads((ROOT / "sandbox/engine/known.json").read_text())
    models = json.loads((ROOT / "deployments/data/models-vllm-0.32.0.json").read_text())
    names = json.loads((ROOT / "tests/data/engine/names-by-version.json").read_text())["versions"]["0.32.0"]
    for key in set(known) - {"tool_call_parsers", "reasoning_parsers"}:
        assert known[key] == models[key]
    for key in ("tool_call_parsers", "reasoning_parsers"):
        assert known[key] == names[key]


@pytest.mark.parametrize(
    ("words", "config", "line", "code", "field"),
    [
        (
            ["--enable-auto-tool-choice", "--tool-call-parser=minimax"],
            {},
            "KeyError: 'invalid tool call parser: minimax (chose from { apertus,",
            Code.BAD_VALUE,
            "tool_call_parser",
        ),
        (
            ["--reasoning-parser=odd"],
            {},
            "KeyError: 'invalid reasoning parser: odd (chose from { cohere_command3,",
            Code.BAD_VALUE,
            "reasoning_parser",
        ),
        (
            [],
            {"model_type": "odd", "auto_map": OWN_CODE},
            "Value error, The repository /mnt/models contains custom code which must be executed to correctly load",
            Code.REMOTE_CODE,
            "trust_remote_code",
        ),
        (
            [],
            {"model_type": "odd"},
            "Value error, The checkpoint you are trying to load has model type `odd` but Transformers does not",
            Code.MODEL_FILES,
            "source_uri",
        ),
        (
            [],
            {"architectures": ["FooForCausalLM"]},
            "Value error, Model architectures ['FooForCausalLM'] are not supported for now. Supported architectures:",
            Code.MODEL_FILES,
            "source_uri",
        ),
        (
            [],
            {"architectures": ["MPTForCausalLM"]},
            "Value error, Model architecture MPTForCausalLM was supported in vLLM until v0.28.0, and is not",
            Code.MODEL_FILES,
            "source_uri",
        ),
        (
            [],
            {"architectures": ["OddForCausalLM"], "auto_map": OWN_CODE},
            "Value error, Model architectures ['OddForCausalLM'] are not supported for now.",
            Code.MODEL_FILES,
            "source_uri",
        ),
    ],
)
def test_what_it_does_not_have_ends_it(words, config, line, code, field):
    status, log = start(*words, **config)
    assert status == 1
    assert any(line in each for each in log), log[-5:]
    reason = from_log("\n".join(log))
    assert (reason.code, reason.field) == (code, field)


@pytest.mark.parametrize(
    ("words", "config"),
    [
        (["--enable-auto-tool-choice", "--tool-call-parser=qwen3_json", "--reasoning-parser=glm47"], {}),
        # Nobody looks at the name while no tool is chosen automatically.
        (["--tool-call-parser=minimax"], {}),
        (["--trust-remote-code"], {"model_type": "odd", "auto_map": OWN_CODE}),
        (["--trust-remote-code"], {"architectures": ["OddForCausalLM"], "auto_map": OWN_CODE}),
        ([], {"architectures": ["HeliumForCausalLM"]}),
        ([], {"architectures": ["Qwen2ForSequenceClassification"]}),
        (["--enable-auto-tool-choice", "--tool-call-parser=minimax"], {"build": Build("0.20.0")}),
    ],
)
def test_what_it_has_starts(words, config):
    status, log = start(*words, **config)
    assert status == 0, log[-5:]
