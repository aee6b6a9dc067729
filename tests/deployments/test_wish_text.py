"""A wish as YAML: what is read of it, with the line of each mistake, and what is never built."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.spec import DeploymentSpec
from deployments.wish_text import MOST_CHARACTERS, WishTextError, parse, read_wish, write, write_wish
from tests.deployments.wishes import roles_json, spec_json, spec_of

WHOLE = """\
team: search
name: chat
spec:
  source:
    uri: hf://Qwen/Qwen2.5-7B-Instruct
  flavor: h100-80gb
  replicas: {min: 1, max: 2}
  engine:
    args:
      max-model-len: 16384   # tokens
      gpu-memory-utilization: 0.9
      enable-prefix-caching: off
      dtype: "half"
"""


def lines_of(text: str) -> list[tuple[int, str]]:
    return [(problem.line, problem.pointer) for problem in read_wish(text).problems]


def test_a_request_is_read_whole():
    read = read_wish(WHOLE)
    assert read.problems == ()
    assert (read.team, read.name) == ("search", "chat")
    assert read.spec["engine"]["args"] == {
        "max-model-len": 16384,
        "gpu-memory-utilization": 0.9,
        "enable-prefix-caching": False,
        "dtype": "half",
    }
    assert read.spec["replicas"] == {"min": 1, "max": 2}


def test_a_spec_alone_and_json_are_read_too():
    alone = read_wish(write(spec_json()))
    assert (alone.spec, alone.team, alone.name) == (spec_of().to_json(), "", "")
    assert read_wish(json.dumps({"name": "chat", "spec": spec_json()}, indent=1)).name == "chat"
    assert read_wish("\ufeff" + WHOLE).problems == ()


def test_mistakes_are_told_with_line_and_place():
    wrong = WHOLE.replace("max: 2", "max: two").replace("flavor:", "flavour:").replace("team: search", "team: [search]")
    # What is missing is told where it should stand: below “spec”, on line 3.
    assert lines_of(wrong) == [(1, "/team"), (3, "/spec/flavor"), (6, "/spec/flavour"), (7, "/spec/replicas/max")]
    assert lines_of("source: {uri: hf://a/b}\nflavor: h100\nengine:\n  args:\n    port: [1]\n") == [
        (5, "/engine/args/port")
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 0, "nothing in it"),
        ("# only a remark\n", 0, "nothing in it"),
        ("just words", 0, "Write the fields"),
        ("- a\n- b\n", 0, "Write the fields"),
        ("team: search\nname: chat\n", 0, "The wish itself is missing"),
        ("a: [1, 2\nb: 3", 2, "not YAML"),
        ("a: 1\n\tb: 2", 2, "not YAML"),
        ("a: \x00", 0, "not YAML"),
        ("flavor: a\nflavor: b\n", 2, "given twice"),
        ("flavor: a\n---\nflavor: b\n", 2, "One wish at a time"),
        ("flavor: !!python/object/apply:os.system [id]\n", 1, "Tags"),
        ("flavor: !!binary aGk=\n", 1, "Tags"),
        ("? [a, b]\n: c\n", 1, "plain word"),
        ("a: &x {b: 1}\n? *x\n: 2\n", 2, "plain word"),
        ("spec: *nobody\n", 1, "alias"),
        ("spec: &me {engine: {args: *me}}\n", 1, "alias"),
        ("spec: &me [*me, *me]\n", 1, "alias"),
        ("a: " + "[" * 5_000, 1, ""),
        ("{" * 5_000, 1, ""),
        ("a: " + "x" * MOST_CHARACTERS, 0, "At most 64 KiB"),
        ("[" + "1," * 3_000 + "1]", 1, "More than 2,000 values"),
    ],
)
def test_what_is_no_wish_is_refused_in_words(text: str, line: int, words: str):
    (problem,) = read_wish(text).problems
    assert words in problem.message
    assert problem.line == line or words == ""


def test_aliases_that_explode_are_never_built():
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 30)]
    begun = time.perf_counter()
    (problem,) = read_wish("\n".join(laughs)).problems
    assert (problem.line, "aliases counted each time" in problem.message) == (4, True)
    assert time.perf_counter() - begun < 5, "ten to the thirtieth values would take longer"


def test_an_alias_that_helps_is_taken():
    text = """\
source: {uri: hf://a/b}
flavor: h100
strategy: disaggregated
prefill: {args: &batch {max-num-seqs: 256}}
decode: {args: *batch}
"""
    read = read_wish(text)
    assert read.problems == ()
    assert read.spec["decode"]["args"] == read.spec["prefill"]["args"] == {"max-num-seqs": 256}


@pytest.mark.parametrize("word", ["2026-01-02", "12:30:45", "0x1F", "1_000", ".inf", ".nan", "9" * 5_000, "=", "<<"])
def test_words_that_yaml_has_ideas_about_end_in_no_trace(word: str):
    read_wish(f"source: {{uri: hf://a/b, revision: {word}}}\nflavor: h100\nengine: {{args: {{seed: {word}}}}}\n")


@pytest.mark.parametrize("document", [spec_json(), roles_json(), spec_json(scaling={"percent": 50})])
def test_what_is_written_is_read_as_the_same(document: dict[str, Any]):
    spec = DeploymentSpec.from_json(document)
    read = read_wish(write_wish(spec.to_json(), team="search", name="chat"))
    assert (read.spec, read.team, read.name, read.problems) == (spec.to_json(), "search", "chat", ())


VALUES = (
    st.text("abzAZ019._/:+-", min_size=1, max_size=12).filter(lambda text: not text.startswith("-"))
    | st.sampled_from(["on", "no", "null", "~", "1e6", "1:30", "0o7", "2026-01-02", ".5", "1.", "0x1", "+1", "=", "y"])
    | st.integers(-(10**9), 10**9)
    | st.booleans()
    | st.floats(-1e6, 1e6)
)


@given(args=st.dictionaries(st.from_regex(r"[a-z]{1,6}(-[a-z0-9]{1,4})?", fullmatch=True), VALUES, max_size=6))
@settings(max_examples=200, deadline=None)
def test_every_value_of_a_spec_comes_back_as_it_was(args: dict[str, Any]):
    assert parse(write({"args": args})).data == {"args": args}


def test_what_is_not_set_is_not_written():
    assert "null" not in write_wish(spec_of().to_json())
    assert "credential" not in write_wish(spec_of().to_json())


def test_numbers_that_only_old_yaml_reads_so_are_none():
    for old in ("010", "-017", "1:30"):
        assert lines_of(WHOLE.replace("max: 2", f"max: {old}")) == [(7, "/spec/replicas/max")], old
    written = WHOLE.replace("max: 2", "max: 10")
    assert read_wish(written).spec["replicas"]["max"] == 10


def test_the_error_says_where():
    with pytest.raises(WishTextError) as failure:
        parse("a: 1\nb: {c: [}\n")
    assert failure.value.line == 2
