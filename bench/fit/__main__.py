"""Print what the memory estimate says beside what real engines reported, and what one check and one fit cost.

    make bench-fit                     # ARGS="--write" also puts the tables into docs/memory-fit.md

Times are of this process, without Django's start: on the processor, which a busy machine leaves as they are, and by the
clock. The ratio is to hashing one MiB with sha256 in the same run.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.fit.references import TOLERANCE, Answer, answers
from deployments.commandline import check_document, render_document
from deployments.fitting import fit_document

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "memory-fit.md"
MARKS = "<!-- begin: written by make bench-fit -->", "<!-- end -->"
BUDGET_MS = 10.0
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
REQUEST: dict[str, Any] = {
    "team": "search",
    "name": "chat",
    "model": {"config": CONFIG},
    "spec": {
        "source": {"uri": "hf://meta-llama/Llama-3.1-8B-Instruct"},
        "flavor": "l4-24gb",
        "engine": {"args": {"max-model-len": 65536, "gpu-memory-utilization": 0.9, "enable-prefix-caching": True}},
    },
}
# A wish that costs much: two roles whose remedies are each tried through all rules, with layers that keep a window.
GEMMA: dict[str, Any] = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_attention_heads": 32,
        "num_hidden_layers": 62,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "max_position_embeddings": 131072,
        "vocab_size": 262208,
    },
    "torch_dtype": "bfloat16",
}
TWO_ROLES: dict[str, Any] = {
    "team": "search",
    "name": "chat",
    "model": {"config": GEMMA, "weights_bytes": 54_000_000_000},
    "spec": {
        "source": {"uri": "hf://google/gemma-3-27b-it"},
        "flavor": "l4-24gb",
        "strategy": "disaggregated",
        "prefill": {},
        "decode": {},
    },
}
Row = tuple[str, str, str, str, str, str, str, str, str]


def table() -> list[Row]:
    """The table of the reports: predicted, reported and error, each with its unit."""
    rows: list[Row] = [
        (
            "report",
            "set",
            "model and GPU",
            "fits",
            "weights, GiB",
            "error",
            "tokens from reported KV memory",
            "error",
            "tokens from the question",
        )
    ]
    return rows + [_row(answer) for answer in answers()]


def markdown() -> str:
    """The same as a table for people to read."""
    head, *rows = table()
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def _row(answer: Answer) -> Row:
    verdicts = {True: "fits", False: "does not fit"}
    right = "" if answer.fits == answer.reported_fits else " (wrong)"
    tokens = "–"
    if answer.tokens is not None and answer.reported_tokens is not None:
        tokens = f"{answer.tokens:,} | {answer.reported_tokens:,} | {_percent(answer.tokens_error)}"
        if answer.tokens_error is not None and abs(answer.tokens_error) > TOLERANCE:
            tokens += " (miss)"
    tokens = tokens.replace(" | ", " / ")
    return (
        answer.id,
        answer.split,
        answer.title,
        f"{verdicts[answer.fits]} / {verdicts[answer.reported_fits]}{right}",
        f"{answer.weights_gib:.2f} / {_or_dash(answer.reported_weights_gib, '.2f')}",
        _percent(answer.weights_error),
        f"{_or_dash(answer.from_memory, ',')} / {_or_dash(answer.reported_tokens, ',')}",
        _percent(answer.memory_error),
        f"{tokens}; {answer.note}" if answer.note else tokens,
    )


def _or_dash(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:+.1%}"


@dataclass(frozen=True)
class Cost:
    """What one call of a command takes, in ms: of the processor and by the clock; the ratio is of processor times."""

    name: str
    processor: float
    clock: float
    ratio: float


def costs(rounds: int) -> list[Cost]:
    """Medians over so many calls of each command, and the ratio to the yardstick."""
    block = bytes(1024 * 1024)
    yardstick, _ = _medians(lambda: hashlib.sha256(block).digest(), rounds)
    commands: list[tuple[str, Callable[[], object]]] = [
        ("check", lambda: check_document(REQUEST)),
        ("check, two roles", lambda: check_document(TWO_ROLES)),
        ("fit", lambda: fit_document(REQUEST)),
        ("render", lambda: render_document(REQUEST)),
    ]
    found = []
    for name, command in commands:
        command()  # Files are read once.
        processor, clock = _medians(command, rounds)
        found.append(Cost(name, processor, clock, processor / yardstick))
    return found


def _medians(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Milliseconds of one call on the processor and by the clock. The clock also counts what others take meanwhile."""
    times = []
    for _ in range(rounds):
        begin = time.process_time(), time.perf_counter()
        work()
        times.append((time.process_time() - begin[0], time.perf_counter() - begin[1]))
    processor, clock = zip(*times, strict=True)
    return statistics.median(processor) * 1000, statistics.median(clock) * 1000


def write(document: Path) -> None:
    """Put the table of the reports between its marks."""
    text = document.read_text(encoding="utf-8")
    begin, end = map(re.escape, MARKS)
    filled = re.sub(
        f"{begin}.*?{end}", lambda _: f"{MARKS[0]}\n{markdown()}\n{MARKS[1]}", text, count=1, flags=re.DOTALL
    )
    document.write_text(filled, encoding="utf-8")


def main() -> int:
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--write", action="store_true", help="put the table into docs/memory-fit.md")
    arguments.add_argument("--rounds", type=int, default=300)
    wanted = arguments.parse_args()
    print("Each column: predicted / reported. Nothing is tuned to these reports.\n")
    print(markdown())
    wrong = [answer.id for answer in answers() if answer.fits != answer.reported_fits]
    print(f"\nfits or not: {len(answers()) - len(wrong)} of {len(answers())} right")
    print(f"\n{'':<18}{'processor, ms':>15}{'clock, ms':>12}{'× sha256 of 1 MiB':>20}")
    slow = False
    for cost in costs(wanted.rounds):
        print(f"{cost.name:<18}{cost.processor:>15.2f}{cost.clock:>12.2f}{cost.ratio:>20.1f}")
        slow = slow or (cost.name != "render" and cost.processor >= BUDGET_MS)
    if slow:
        print(f"check or fit took {BUDGET_MS:g} ms or more")
    if wanted.write:
        write(DOCUMENT)
    return 1 if wrong or slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
