"""Arguments of the engine: one word per flag, and nothing that three expansions could open."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.engine.flags import FlagClass, flags_of
from deployments.engine.render import UnsafeValueError, render_args
from deployments.spec_errors import parse_spec
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


@settings(max_examples=15, deadline=None)
@given(args=st.dictionaries(st.sampled_from(SETTABLE), VALUES, min_size=1, max_size=5))
def test_a_shell_hands_every_word_on_unchanged(args: dict[str, Any]):
    args = {name: value for name, value in args.items() if parse_spec(spec_json(args={name: value}))[0]}
    words = render_args(VERSION, spec_of(args=args).engine.args)
    line = "eval \"exec printf '%s\\n' $@\""
    printed = subprocess.run(["bash", "-c", line, "x", *words], capture_output=True, text=True, check=True)
    assert printed.stdout.splitlines() == (words or [""])
