"""Print what the memory estimate says beside what real engines reported, and what one check and one fit cost.

    make bench-fit                     # ARGS="--write" also puts the tables into docs/memory-fit.md

Times are of this process, without Django's start: on the processor, which a busy machine leaves as they are, and by the
clock. The ratio is to hashing one MiB with sha256 in the same run.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from bench.fit.costs import print_costs
from bench.fit.references import TOLERANCE, Answer, answers

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "memory-fit.md"
MARKS = "<!-- begin: written by make bench-fit -->", "<!-- end -->"
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
    slow = print_costs(wanted.rounds)
    if wanted.write:
        write(DOCUMENT)
    return 1 if wrong or slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
