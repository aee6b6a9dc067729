"""Arguments of the engine: one word per flag, and nothing that three expansions could open."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engine.flags import FlagClass, flags_of
from deployments.engine.render import UnsafeValueError, quoted, render_args
from deployments.spec import hazard
from deployments.spec_errors import parse_spec
from sandbox.node.environment import expand
from tests.deployments.wishes import spec_json, spec_of

VERSION = "0.32.0"
SETTABLE = sorted(flag.name for flag in flags_of(VERSION).values() if flag.cls in {FlagClass.OPEN, FlagClass.GUARDED})
WORD = re.compile(r"--[a-z][a-z0-9-]*(=[A-Za-z0-9._/:+-]+)?")


def test_flags_come_in_order_with_their_value_in_the_same_word():
    args = {
        "max-model-len": 16384,
        "gpu-memory-utilization": 0.9,
        "enable-prefix-caching": True,
        "async-scheduling": False,
        "dtype": "half",
    }
    assert render_args(VERSION, args) == [
        "--no-async-scheduling",
        "--dtype=half",
        "--enable-prefix-caching",
        "--gpu-memory-utilization=0.9",
        "--max-model-len=16384",
    ]


def test_small_numbers_are_written_out():
    assert render_args(VERSION, {"watermark": 0.00001}) == ["--watermark=0.00001"]


@pytest.mark.parametrize("name", ["model", "middleware", "no-such-flag", "--seed", "se ed", "seed=1"])
def test_what_people_may_not_set_is_not_rendered(name: str):
    with pytest.raises(UnsafeValueError):
        render_args(VERSION, {name: 1})


@pytest.mark.parametrize("value", ["{{.Name}}", "$(HOME)", "${HOME}", "`id`", "-x", "--trust-remote-code", "a\nb"])
def test_a_value_that_would_be_expanded_is_not_rendered(value: str):
    with pytest.raises(UnsafeValueError):
        render_args(VERSION, {"dtype": value})


CLEAN = st.text("abzABZ019._/:+-", min_size=1, max_size=12)
VALUES = st.integers(-(10**12), 10**12) | st.floats() | st.booleans() | CLEAN | st.text(max_size=40)


@given(args=st.dictionaries(st.sampled_from(SETTABLE), VALUES, max_size=5))
def test_no_value_the_spec_takes_escapes_its_word(args: dict[str, Any]):
    spec, _ = parse_spec(spec_json(args=args))
    if spec is None:
        return
    words = render_args(VERSION, spec.engine.args)
    assert len(words) <= len(args)
    for word in words:
        assert WORD.fullmatch(word), word
        assert "{{" not in word
        assert "$(" not in word


PRESETS = json.loads((Path(__file__).parents[2] / "sandbox/lite/data/presets.json").read_text())
# What Go's templates put into a preset's script before any shell reads it; the rest of them is optional here.
TEMPLATES = [
    (re.compile(r"\{\{ shutdownTimeout [^}]*\}\}"), "15"),
    (re.compile(r"\{\{-? if .*?\{\{-? end \}\}", re.DOTALL), ""),
    (re.compile(r"\{\{[^}]*\}\}"), "x"),
]


def scripts() -> Iterator[str]:
    """The command lines with which KServe's presets start vLLM, each once."""

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            for name, item in value.items():
                if name == "command" and any("exec vllm serve" in word for word in item):
                    yield item[2]
                yield from walk(item)
        elif isinstance(value, list):
            for item in value:
                yield from walk(item)

    found = dict.fromkeys(script for preset in PRESETS for script in walk(preset["spec"]))
    for script in found:
        for pattern, text in TEMPLATES:
            script = pattern.sub(text, script)
        yield script


SCRIPTS = list(scripts())


@pytest.fixture(scope="module")
def printer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `vllm` writes the words it was given into a file beside itself, each ended by a zero byte."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "vllm"
    program.write_text(
        '#!/bin/bash\nif [ "$1" = --version ]; then echo 0.32.0; exit; fi\n'
        f"printf '%s\\0' \"$@\" > '{folder}/words'\n"
    )
    program.chmod(0o755)
    return folder


def served(printer: Path, script: str, environment: dict[str, str], words: list[str]) -> list[str]:
    """The words that vLLM gets from a preset's script, after the kubelet's expansion and in a real bash."""
    environment = {name: expand(value, {"HOME": "/root"}) for name, value in environment.items()}
    words = [expand(word, environment) for word in words]
    # What LeaderWorkerSet sets in its pods; without it the scripts of several nodes wait for a name to resolve.
    outer = {"PATH": f"{printer}:{os.environ['PATH']}", "LWS_LEADER_ADDRESS": "localhost"}
    command = ["bash", "-c", script, "--", *words]
    subprocess.run(command, env=outer | environment, check=True, stdout=subprocess.DEVNULL)
    return (printer / "words").read_text().split("\0")[:-1]


def test_the_presets_start_vllm_by_their_own_scripts(printer: Path):
    assert len(SCRIPTS) >= 4
    for script in SCRIPTS:
        assert "{{" not in script
        assert served(printer, script, {}, [])[:2] == ["serve", "/mnt/models"]


@settings(max_examples=12, deadline=None)
@given(args=st.dictionaries(st.sampled_from(SETTABLE), VALUES, min_size=1, max_size=5), script=st.sampled_from(SCRIPTS))
def test_every_flag_reaches_vllm_as_one_word_through_the_presets(printer: Path, args: dict[str, Any], script: str):
    args = {name: value for name, value in args.items() if parse_spec(spec_json(args={name: value}))[0]}
    words = render_args(VERSION, spec_of(args=args).engine.args)
    bare = served(printer, script, {}, [])
    line = quoted(words)
    assert served(printer, script, {"VLLM_ADDITIONAL_ARGS": line}, []) == [*bare, *words]
    assert served(printer, script, {}, [quoted([word]) for word in words]) == [*bare, *words]


TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x2FF, exclude_characters="$\x7f"), max_size=30)


@settings(max_examples=12, deadline=None)
@given(words=st.lists(TEXT.map("--x={}".format).filter(lambda text: not hazard(text.lstrip("-"))), max_size=4))
def test_any_text_is_quoted_exactly_once(printer: Path, words: list[str]):
    script = SCRIPTS[0]
    bare = served(printer, script, {}, [])
    assert served(printer, script, {"VLLM_ADDITIONAL_ARGS": quoted(words)}, []) == [*bare, *words]


def test_json_keeps_its_quotes(printer: Path):
    transfer = '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_both"}'
    assert served(printer, SCRIPTS[0], {"VLLM_ADDITIONAL_ARGS": quoted([transfer])}, [])[-1] == transfer


@pytest.mark.parametrize("word", ["--x={{.Name}}", "--x=$(HOME)", "--x=${HOME}", "--x=`id`", "--x=a\nb", "--x=$$"])
def test_a_word_that_would_be_expanded_before_the_shell_is_not_quoted(word: str):
    with pytest.raises(UnsafeValueError):
        quoted([word])
