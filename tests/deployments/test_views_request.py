"""The request form: what it keeps, what it says, and what becomes of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.template.loader import render_to_string
from django.urls import reverse

from deployments.engine.flags import check_args, versions
from deployments.findings import error
from deployments.forms.engine_fields import BY_FLAG
from deployments.forms.flags import FlagTextError, format_flags, has_line, parse_flags, with_line
from deployments.forms.request import DeploymentForm, initial_of, with_value
from deployments.models import CatalogEntry, Deployment, ModelCheck, Team, User
from tests.deployments import factories as make
from tests.deployments.viewing import flat, signed_in


def typed(**changes: str) -> dict[str, str]:
    """What a person types for the model that fits."""
    return {
        "team": "search",
        "name": "chat",
        "source_uri": "hf://Qwen/Qwen2.5-7B-Instruct",
        "strategy": "standard",
        "flavor": "h100-80gb",
        "tensor_parallel_size": "1",
        "replicas_min": "1",
        "replicas_max": "2",
        "max_model_len": "16384",
        "gpu_memory_utilization": "0.9",
        "note": "for the demo",
        **changes,
    }


def test_a_good_form_becomes_a_deployment_that_waits(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed())

    chat = Deployment.objects.get()
    assert answer.status_code == 302
    assert answer["Location"] == reverse("deployment-detail", args=[chat.pk])
    assert chat.latest is not None
    assert chat.latest.spec["engine"]["args"] == {
        "tensor-parallel-size": 1,
        "max-model-len": 16384,
        "gpu-memory-utilization": 0.9,
    }
    assert chat.latest.spec["replicas"] == {"min": 1, "max": 2}
    assert chat.latest.note == "for the demo"


def test_the_live_answer_looks_nothing_up_twice(
    hub: list[str], alice: User, django_assert_max_num_queries: Any
) -> None:
    browser = signed_in(alice)
    browser.post(reverse("deployment-preflight"), typed())  # the hub is asked for the model once

    with django_assert_max_num_queries(20) as counted:
        answer = browser.post(reverse("deployment-preflight"), typed())

    asked = [query["sql"] for query in counted.captured_queries]
    assert b"Other ways" in answer.content
    assert len(asked) == len(set(asked))
    assert sum('FROM "deployments_node"' in sql for sql in asked) <= 1


def test_a_model_may_be_named_as_its_page_names_it(hub: list[str], alice: User) -> None:
    signed_in(alice).post(reverse("deployment-create"), typed(source_uri="Qwen/Qwen2.5-7B-Instruct"))

    latest = Deployment.objects.get().latest
    assert latest is not None
    assert latest.spec["source"]["uri"] == "hf://Qwen/Qwen2.5-7B-Instruct"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "Not A Name"),
        ("name", "a" * 500),
        ("name", "x\x00y"),
        ("source_uri", "ftp://nowhere"),
        ("source_uri", "hf://" + "a" * 5000),
        ("source_uri", "hf://a/{{b}}"),
        ("flavor", "quantum"),
        ("strategy", "oci-volume"),
        ("strategy", "anything"),
        ("tensor_parallel_size", "3"),
        ("tensor_parallel_size", "-1"),
        ("tensor_parallel_size", "two"),
        ("replicas_min", "0"),
        ("replicas_max", "99999999999999999999999"),
        ("replicas_max", "1e9"),
        ("max_model_len", "131072"),
        ("max_model_len", "-5"),
        ("gpu_memory_utilization", "1.5"),
        ("gpu_memory_utilization", "NaN"),
        ("kv_cache_dtype", "int1"),
        ("enable_prefix_caching", "perhaps"),
        ("args", "--no-such-flag=1"),
        ("args", "rm -rf /"),
        ("args", "--max-num-seqs=$(id)"),
        ("args", "--max-model-len=5"),
        ("args", "\n".join(f"--flag-{n}=1" for n in range(200))),
        ("team", "labs"),
        ("team", ""),
        ("note", "n" * 5000),
    ],
)
def test_bad_input_is_answered_at_its_field_and_nothing_is_lost(
    hub: list[str], alice: User, bob: User, field: str, value: str
) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**{field: value}))

    assert answer.status_code == 422
    assert not Deployment.objects.exists()
    messages = answer.context["fields"][field]["messages"]
    assert [said for said in messages if said["severity"] == "error"], answer.context["form"].errors
    kept = answer.context["values"]
    assert {name: kept[name] for name in typed() if name != field} == {
        name: text for name, text in typed().items() if name != field
    }


@pytest.mark.parametrize("field", ["max_model_len", "tensor_parallel_size", "replicas_max", "gpu_memory_utilization"])
@pytest.mark.parametrize("text", ["\u0663\u0664\u0665", "\uff11", "\u0967", "\u0661,\u0662\u0663\u0664", "0.\u0669"])
def test_numbers_are_written_in_the_digits_from_0_to_9(hub: list[str], alice: User, field: str, text: str) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(**{field: text}))

    words = f"Must be a {'' if field == 'gpu_memory_utilization' else 'whole '}number."
    assert (answer.status_code, answer.context["form"].errors[field]) == (422, [words])
    assert not Deployment.objects.exists()


def test_what_was_typed_is_shown_again_as_text(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-create"), typed(name='"><script>alert(1)</script>'))

    text = answer.content.decode()
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_every_finding_stands_at_its_field_while_one_types(hub: list[str], alice: User) -> None:
    url = reverse("deployment-preflight")

    answer = signed_in(alice).post(url, typed(tensor_parallel_size="3"), headers={"HX-Request": "true"})

    text = answer.content.decode()
    assert answer.status_code == 200
    assert 'id="msg-tensor_parallel_size" hx-swap-oob="morph"' in text
    assert 'data-set-field="tensor_parallel_size" data-set-value="2"' in flat(text)
    assert "<html" not in text


def test_the_side_shows_fit_other_ways_and_who_decides(hub: list[str], alice: User) -> None:
    make.make_flavor("l4-24gb")

    answer = signed_in(alice).post(reverse("deployment-preflight"), typed())

    advice = answer.context["advice"]
    [one] = advice.fits
    assert (one.title, one.word) == ("", "fits")
    assert [part["name"] for part in one.parts] == ["weights", "activations", "overhead", "KV cache", "left free"]
    assert sum(part["value"] for part in one.parts) == pytest.approx(one.fit.total_gib, abs=0.1)
    assert "1 × L4-24GB" in [way.label for way in advice.ways]
    assert advice.approval == "An admin approves every request of this team."


def test_the_side_says_how_the_weights_are_stored_and_what_that_means(hub: list[str], alice: User) -> None:
    known = ModelCheck.objects.get()
    known.facts["format"] = "safetensors"
    known.save()
    text = flat(signed_in(alice).post(reverse("deployment-preflight"), typed()).content.decode())
    assert "Stored as safetensors: read straight into GPU memory, and nothing in them is run." in text


def test_an_empty_form_scolds_nobody(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).get(reverse("deployment-create"))

    assert [name for name, field in answer.context["fields"].items() if field["messages"]] == []
    assert answer.context["general"] == []


def test_a_half_typed_form_scolds_nobody_for_what_is_still_empty(hub: list[str], alice: User) -> None:
    answer = signed_in(alice).post(reverse("deployment-preflight"), typed(name="", source_uri=""))

    assert answer.context["fields"]["name"]["messages"] == []
    assert answer.context["fields"]["source_uri"]["messages"] == []


def test_a_fix_works_without_scripts(hub: list[str], alice: User) -> None:
    pressed = typed(tensor_parallel_size="3") | {"set": "tensor_parallel_size=2"}

    answer = signed_in(alice).post(reverse("deployment-create"), pressed)

    assert answer.status_code == 200
    assert answer.context["values"]["tensor_parallel_size"] == "2"
    assert answer.context["values"]["name"] == "chat"
    assert not Deployment.objects.exists()


def test_a_fix_of_a_flag_without_a_field_goes_into_the_text() -> None:
    fixed = with_value({"args": "--block-size=3\n--seed=1"}, "block_size", "16")

    assert fixed["args"] == "--seed=1\n--block-size=16"


def test_another_way_sets_all_its_fields(hub: list[str], alice: User) -> None:
    pressed = typed() | {"way": "flavor=h100-80gb&tensor_parallel_size=2&kv_cache_dtype=fp8"}

    answer = signed_in(alice).post(reverse("deployment-create"), pressed)

    values = answer.context["values"]
    assert (values["tensor_parallel_size"], values["kv_cache_dtype"]) == ("2", "fp8")


def test_a_catalogue_entry_fills_the_form(hub: list[str], alice: User) -> None:
    CatalogEntry.objects.create(
        slug="qwen",
        name="Qwen",
        uri=make.QWEN,
        summary="",
        parameters_billion=7.6,
        flavor="h100-80gb",
        args={"max-model-len": 8192, "max-num-batched-tokens": 4096, "seed": 7},
    )

    answer = signed_in(alice).get(reverse("deployment-create"), {"model": "qwen"})

    values = answer.context["values"]
    assert values["source_uri"] == make.QWEN
    assert values["max_model_len"] == "8192"
    assert (values["max_num_batched_tokens"], values["args"]) == ("4096", "--seed=7")
    assert answer.context["advice"].fits


def test_who_is_in_no_team_is_told_so(hub: list[str]) -> None:
    answer = signed_in(make.make_user("dora")).get(reverse("deployment-create"))

    assert "in no team yet" in answer.content.decode()


def test_an_edit_becomes_the_next_revision(hub: list[str], team: Team, alice: User) -> None:
    signed_in(alice).post(reverse("deployment-create"), typed())
    chat = Deployment.objects.get()
    url = reverse("deployment-edit", args=[chat.pk])

    answer = signed_in(alice).post(url, typed(max_model_len="8192") | {"base_revision": "1"})

    assert answer.status_code == 302
    chat.refresh_from_db()
    assert chat.latest is not None
    assert (chat.latest.number, chat.latest.spec["engine"]["args"]["max-model-len"]) == (2, 8192)


def test_an_edit_cannot_move_or_rename_the_deployment(hub: list[str], alice: User) -> None:
    signed_in(alice).post(reverse("deployment-create"), typed())
    chat = Deployment.objects.get()
    url = reverse("deployment-edit", args=[chat.pk])

    signed_in(alice).post(url, typed(name="other", team="labs", max_model_len="8192") | {"base_revision": "1"})

    chat.refresh_from_db()
    assert (chat.name, chat.team.slug) == ("chat", "search")


def test_an_edit_on_a_stale_page_keeps_what_was_typed(hub: list[str], alice: User) -> None:
    client = signed_in(alice)
    client.post(reverse("deployment-create"), typed())
    url = reverse("deployment-edit", args=[Deployment.objects.get().pk])
    client.post(url, typed(max_model_len="8192") | {"base_revision": "1"})

    answer = client.post(url, typed(max_model_len="4096") | {"base_revision": "1"})

    assert answer.status_code == 422
    assert answer.context["values"]["max_model_len"] == "4096"
    assert "Revision 2 is the newest" in answer.content.decode()
    again = typed(max_model_len="4096") | {"base_revision": str(answer.context["base_revision"])}
    assert client.post(url, again).status_code == 302


def test_a_fix_from_the_reason_card_prefills_the_edit(hub: list[str], alice: User) -> None:
    client = signed_in(alice)
    client.post(reverse("deployment-create"), typed())
    url = reverse("deployment-edit", args=[Deployment.objects.get().pk])

    answer = client.get(url, {"set": "max_model_len=4096"})

    assert answer.context["values"]["max_model_len"] == "4096"
    assert answer.context["values"]["gpu_memory_utilization"] == "0.9"


def test_the_form_reads_back_what_it_wrote() -> None:
    spec: dict[str, Any] = {
        "source": {"uri": make.QWEN, "revision": None},
        "strategy": "standard",
        "flavor": "h100-80gb",
        "replicas": {"min": 1, "max": 3},
        "engine": {"profile": "vllm-0.32.0", "args": {"max-model-len": 4096, "enforce-eager": True, "seed": 7}},
    }

    values = initial_of(spec)

    assert values["max_model_len"] == "4096"
    assert parse_flags(values["args"]) == {"enforce-eager": True, "seed": 7}
    assert set(values) <= set(DeploymentForm.base_fields)


def test_digits_of_other_scripts_are_no_numbers() -> None:
    assert parse_flags("--max-num-seqs=\u0663\n--watermark=0.\u0661") == {
        "max-num-seqs": "\u0663",
        "watermark": "0.\u0661",
    }


def test_flags_are_read_as_people_write_them() -> None:
    text = "# by hand\n--max-num-seqs=64\n\n--enforce-eager\n--no-enable-prefix-caching\n--swap_space=2.5\n--dtype=half"

    flags = parse_flags(text)

    assert flags == {
        "max-num-seqs": 64,
        "enforce-eager": True,
        "enable-prefix-caching": False,
        "swap-space": 2.5,
        "dtype": "half",
    }
    assert parse_flags(format_flags(flags)) == flags


@pytest.mark.parametrize(
    ("typed", "value"),
    [("1_0", "1_0"), ("+10", 10), ("1e3", 1000.0), (".5", 0.5), ("nan", "nan"), ("inf", "inf"), ("10_000", "10_000")],
)
def test_a_flag_takes_the_numbers_that_a_command_line_takes(typed: str, value: object) -> None:
    assert parse_flags(f"--stream-interval={typed}") == {"stream-interval": value}


def test_what_the_box_shows_as_an_example_has_no_field_of_its_own() -> None:
    page = render_to_string("parts/expert_fields.html", {"values": {}, "fields": {}})
    (example,) = re.findall(r'placeholder="(--[^"]+)"', page)
    (name,) = parse_flags(example)
    assert name not in BY_FLAG
    for version in versions():
        assert check_args(version, parse_flags(example)) == []


@pytest.mark.parametrize(
    ("line", "flags"),
    [
        ("--stream-interval 8", {"stream-interval": 8}),
        ("--stream_interval   8 \\", {"stream-interval": 8}),
        ("--dtype 'half'", {"dtype": "half"}),
        ('--dtype="half"', {"dtype": "half"}),
        ("--seed -1", {"seed": -1}),
        ("--enforce-eager true", {"enforce-eager": True}),
        ('--speculative-config \'{"method": "ngram"}\'', {"speculative-config": '{"method": "ngram"}'}),
        ("--load-format\tgguf", {"load-format": "gguf"}),
    ],
)
def test_a_flag_is_read_as_a_command_line_has_it(line: str, flags: dict[str, object]) -> None:
    assert parse_flags(line) == flags
    (name,) = flags
    assert has_line(line, name)
    assert with_line(line, name, "x") == f"--{name}=x"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "--max-model-len=4096 --max-num-seqs=8",
            "Line 1: one flag to a line. Write “--max-model-len=4096”, “--max-num-seqs=8”, each on its own.",
        ),
        (
            "# mine\n--enforce-eager -tp 2 --seed 1",
            "Line 2: one flag to a line. Write “--enforce-eager”, “--tensor-parallel-size=2”, “--seed=1”, each on its "
            "own.",
        ),
        ("-tp 2", "Line 1: write “--tensor-parallel-size=2”; short names are not taken."),
        (
            "vllm serve Qwen/Qwen3-8B --max-model-len 4096 --enforce-eager",
            "Line 1: this is a whole command. Write its flags alone, one to a line: “--max-model-len=4096”, "
            "“--enforce-eager”. Its model is named under Model.",
        ),
        (
            "$ VLLM_USE_V1=1 vllm serve Qwen/Qwen3-8B \\\n  --seed 1 \\\n  --hf-overrides '{\"a\": 1}'",
            "Line 1: this is a whole command. Write its flags alone, one to a line: “--seed=1”, "
            '“--hf-overrides={"a": 1}”. Its model is named under Model.',
        ),
        (
            "python3 -m vllm.entrypoints.openai.api_server --model m --seed=1",
            "Line 1: this is a whole command. Write its flags alone, one to a line: “--model=m”, “--seed=1”. Its model "
            "is named under Model.",
        ),
        ("vllm serve m", "Line 1: this is a whole command. It has no flags. Its model is named under Model."),
    ],
)
def test_what_is_no_one_flag_is_answered_with_what_to_write(text: str, said: str, hub: list[str], alice: User) -> None:
    with pytest.raises(FlagTextError) as refused:
        parse_flags(text)
    assert str(refused.value) == said

    answer = signed_in(alice).post(reverse("deployment-create"), typed(args=text))
    assert answer.status_code == 422
    assert [each["message"] for each in answer.context["fields"]["args"]["messages"]] == [said]
    assert answer.context["values"]["args"] == text.strip()


@pytest.mark.parametrize(
    ("pointer", "value", "also", "words"),
    [
        ("/spec/surge", 1, (), "“Start the new pod first”"),
        ("/spec/surge", 0, (), "“Replace pods in place”"),
        ("/spec/strategy", "oci-volume", (), "“OCI volume”"),
        ("/spec/source/cache", "claim", (), "“Ahead, into a volume claim that all replicas mount”"),
        ("/spec/engine/args/enable-auto-tool-choice", True, (), "on"),
        ("/spec/engine/args/enable-prefix-caching", False, (), "off"),
        ("/spec/engine/args/max-model-len", 4096, (), "4,096"),
        ("/spec/engine/args/kv-cache-dtype", "fp8", (), "fp8"),
        ("/spec/flavor", "h100-80gb", (), "H100-80GB"),
        ("/spec/engine/args/max-model-len", 4096, (("/spec/surge", 0),), "max-model-len 4,096, surge “Replace pods in "
         "place”"),
        ("/spec/engine/args/seed", 1, (("/spec/engine/args/enforce-eager", None),), "seed 1, enforce-eager none"),
    ],
)  # fmt: skip
def test_a_button_says_what_the_field_says(
    hub: list[str], alice: User, pointer: str, value: Any, also: Any, words: str
) -> None:
    form = DeploymentForm(typed(), principal=make.principal(alice))
    assert form.spec is not None
    form.add_findings([error("any", pointer, "Not so.", value=value, also=also)])
    (said,) = form.messages_of(form.field_of(form.findings[0]))
    assert said["shown"] == words
    assert said["set"] == ({True: "true", False: "false"}[value] if isinstance(value, bool) else str(value))


def test_a_fix_leaves_a_line_of_several_flags_as_it_is() -> None:
    text = "--stream-interval=4 --seed=1"
    assert with_line(text, "stream-interval", "8") == f"{text}\n--stream-interval=8"


@pytest.mark.parametrize("text", ["max-num-seqs=64", "--a=1\n--a=2", "--a=", "--", "--A B=1", "--x=1 " * 40 + "\n=--y"])
def test_lines_that_are_no_flags_are_named(text: str) -> None:
    with pytest.raises(FlagTextError, match=r"Line|lines"):
        parse_flags(text)
