"""Measure the request form's live answer in a demo: how long it takes while somebody types, what it asks and sends.

    .venv/bin/python -m bench.form                    # starts a stack on data of its own; about two minutes
    .venv/bin/python -m bench.form --data .demo       # a demo that runs already

Times are those of a browser: the request over HTTP, signed in, to the last byte. Beside each answer, in the same round,
the form's page is asked for as it is before anybody types: the same server, session, form and templates without an
answer. Statements are counted in a second process on the demo's database, by the same view with the same fields, and so
is what an answer takes of the processor, which other work beside it leaves as it is.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.demo_figures import Stack
from tests.demo.visitor import Visitor

PATH, PAGE = "/deployments/preflight/", "/deployments/new/"
BUDGET_MS = 150.0
ALONE = 10
USUAL = {
    "team": "devtools",
    "name": "measured",
    "strategy": "standard",
    "flavor": "l40s-48gb",
    "tensor_parallel_size": "1",
    "replicas_min": "1",
    "replicas_max": "2",
    "max_model_len": "8192",
    "gpu_memory_utilization": "0.9",
}
ROLES = {
    "strategy": "disaggregated",
    "prefill_tensor_parallel_size": "2",
    "prefill_replicas_min": "1",
    "prefill_replicas_max": "2",
    "prefill_args": "--max-num-batched-tokens=32768",
    "decode_tensor_parallel_size": "1",
    "decode_replicas_min": "2",
    "decode_replicas_max": "4",
}
WISHES: dict[str, dict[str, str]] = {
    "7B on an L40S": {"source_uri": "hf://Qwen/Qwen2.5-7B-Instruct"},
    "14B split over two L4": {
        "source_uri": "hf://Qwen/Qwen2.5-14B-Instruct",
        "flavor": "l4-24gb",
        "tensor_parallel_size": "2",
    },
    "70B that does not fit": {"source_uri": "hf://meta-llama/Llama-3.3-70B-Instruct", "max_model_len": "32768"},
    "two roles": {"source_uri": "hf://Qwen/Qwen2.5-7B-Instruct", **ROLES},
    "expert flags": {
        "source_uri": "hf://Qwen/Qwen2.5-7B-Instruct",
        "args": "--seed=7\n--max-num-batched-tokens=16384\n--block-size=32",
        "kv_cache_dtype": "fp8",
    },
    "half typed": {"source_uri": "hf://Qwen/", "name": "", "max_model_len": "8k"},
}


def measured(demo: dict[str, Any], rounds: int) -> dict[str, tuple[list[float], list[float], int]]:
    """By wish the milliseconds of each answer, those of the page beside it, and the bytes of one answer."""
    found: dict[str, tuple[list[float], list[float], int]] = {name: ([], [], 0) for name in WISHES}
    with Visitor(demo, "dora", seconds=60) as dora:
        for fields in WISHES.values():
            dora.post(PATH, {**USUAL, **fields}, htmx=True)  # the hub is asked once for each model
        for _ in range(rounds):
            for name, fields in WISHES.items():
                answers, pages, _ = found[name]
                took, answer = timed(lambda fields=fields: dora.post(PATH, {**USUAL, **fields}, htmx=True))
                assert answer.status_code == 200, answer.status_code
                answers.append(took)
                pages.append(timed(lambda: dora.get(PAGE))[0])
                found[name] = answers, pages, len(answer.content)
    return found


def timed(ask: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds, and the answer."""
    begun = time.perf_counter()
    answer = ask()
    return 1000 * (time.perf_counter() - begun), answer


def statements(data: Path) -> dict[str, tuple[int, float]]:
    """By wish the SQL statements of one answer and its milliseconds on the processor, of a process of its own."""
    command = [sys.executable, "-m", "bench.form", "--count", "--data", str(data)]
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    counts: dict[str, tuple[int, float]] = json.loads(text.splitlines()[-1])
    return counts


def count(data: Path) -> None:
    """Print statements and processor time of one answer by wish as JSON."""
    for line in (data / "env").read_text().splitlines():
        name, equals, value = line.removeprefix("export ").partition("=")
        if equals:
            os.environ[name] = value.strip("'\"")
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    import django

    django.setup()
    from django.db import connection
    from django.test import Client
    from django.test.utils import CaptureQueriesContext

    from deployments.models import User

    browser = Client(headers={"host": "127.0.0.1"})
    browser.force_login(User.objects.get(username="dora"))
    counts = {}
    for name, fields in WISHES.items():
        for _ in range(2):
            with CaptureQueriesContext(connection) as asked:
                browser.post(PATH, {**USUAL, **fields}, headers={"hx-request": "true"})
            asked_for = len(asked)  # the next request empties the list
        begun = time.process_time()
        for _ in range(ALONE):
            browser.post(PATH, {**USUAL, **fields}, headers={"hx-request": "true"})
        counts[name] = asked_for, 1000 * (time.process_time() - begun) / ALONE
    print(json.dumps(counts))


def percentile(values: list[float], share: float) -> float:
    """The value that so many of a hundred are at most."""
    return statistics.quantiles(values, n=100, method="inclusive")[round(share * 100) - 1]


def report(data: Path, rounds: int) -> None:
    """Print the table of docs/measured.md."""
    demo = json.loads((data / "demo.json").read_text())
    counts, found = statements(data), measured(demo, rounds)
    print("| answer to | p50 | p95 | the page without an answer, p50 | ratio | processor | SQL statements | bytes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, (answers, pages, size) in found.items():
        middle, page = statistics.median(answers), statistics.median(pages)
        row = (name, f"{middle:.0f} ms", f"{percentile(answers, 0.95):.0f} ms", f"{page:.0f} ms")
        asked, alone = counts[name]
        print(f"| {' | '.join(row)} | {middle / page:.2f} | {alone:.0f} ms | {asked} | {size:,} |")
    everything = [took for answers, _, _ in found.values() for took in answers]
    slowest, load = percentile(everything, 0.95), os.getloadavg()[0]
    print(f"\nAll {len(everything)} answers: p95 {slowest:.0f} ms of {BUDGET_MS:.0f} ms, load {load:.0f}.")


def main() -> None:
    """Measure a running demo, or one started for it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of a demo that runs; one is started without it")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--count", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        count(given.data)
    elif given.data:
        report(given.data, given.rounds)
    else:
        folder = Path(tempfile.mkdtemp(prefix="slipway-form-"))
        folder.chmod(0o755)  # PostgreSQL may run as another user
        stack = Stack(folder / "demo")
        try:
            stack.up_after()
            report(folder / "demo", given.rounds)
        finally:
            stack.stop()
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
