"""PromQL built from parts: label values are quoted in one place, so that no name can escape its matcher."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*\Z")


def quote(value: str) -> str:
    """Return a PromQL string literal (https://prometheus.io/docs/prometheus/latest/querying/basics/#string-literals)."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{escaped}"'


@dataclass(frozen=True)
class Selector:
    """Label matchers, ready to stand between braces. Every value is quoted; regular expressions are made here alone."""

    text: str = ""

    @classmethod
    def equal(cls, **labels: str) -> Selector:
        return cls(", ".join(f"{_name(key)}={quote(value)}" for key, value in labels.items()))

    @classmethod
    def one_of(cls, label: str, values: Iterable[str]) -> Selector:
        """Match any of `values` literally; with none of them nothing matches."""
        alternatives = "|".join(re.escape(value) for value in sorted(values)) or "$none^"
        return cls(f"{_name(label)}=~{quote(alternatives)}")

    @classmethod
    def present(cls, label: str) -> Selector:
        return cls(f'{_name(label)}!=""')

    @classmethod
    def absent(cls, label: str) -> Selector:
        return cls(f'{_name(label)}=""')

    def __and__(self, other: Selector) -> Selector:
        return Selector(", ".join(part for part in (self.text, other.text) if part))


@dataclass(frozen=True)
class Query:
    """A PromQL expression."""

    expr: str

    @classmethod
    def metric(cls, name: str, selector: Selector | None = None) -> Query:
        return cls(f"{name}{{{selector.text}}}" if selector and selector.text else name)

    def rate(self, window: int) -> Query:
        """Per-second increase over `window` seconds."""
        return Query(f"rate({self}[{window}s])")

    def sum_over(self, window: int) -> Query:
        return Query(f"sum_over_time({self}[{window}s])")

    def max_over(self, window: int) -> Query:
        return Query(f"max_over_time({self}[{window}s])")

    def last_over(self, window: int) -> Query:
        """The last value within `window` seconds; a bare selector would repeat one for five minutes."""
        return Query(f"last_over_time({self}[{window}s])")

    def before(self, seconds: int) -> Query:
        """What it was that many seconds ago."""
        return Query(f"{self} offset {seconds}s")

    def sum_by(self, *labels: str) -> Query:
        return self._aggregate("sum", labels)

    def max_by(self, *labels: str) -> Query:
        return self._aggregate("max", labels)

    def avg_by(self, *labels: str) -> Query:
        return self._aggregate("avg", labels)

    def count_by(self, *labels: str) -> Query:
        return self._aggregate("count", labels)

    def group_by(self, *labels: str) -> Query:
        return self._aggregate("group", labels)

    def quantile(self, q: float) -> Query:
        """Quantile of a classic histogram whose buckets were summed by `le`."""
        return Query(f"histogram_quantile({q}, {self})")

    def named(self, series: str) -> Query:
        """Mark every result with the label `series`, so that one query can carry several lines of a chart."""
        return Query(f'label_replace({self}, "series", {quote(series)}, "", "")')

    def relabel(self, target: str, source: str) -> Query:
        """Copy a label that is not empty."""
        return Query(f'label_replace({self}, {quote(target)}, "$1", {quote(source)}, "(.+)")')

    def on(self, other: Query, *labels: str) -> Query:
        """Keep the series whose `labels` occur in `other`, whose values must be 1."""
        return Query(f"({self}) * on ({', '.join(labels)}) group_left () ({other})")

    def __or__(self, other: Query) -> Query:
        return Query(f"{self} or {other}")

    def __truediv__(self, other: Query | int) -> Query:
        return Query(f"({self}) / ({other})")

    def __mul__(self, factor: int) -> Query:
        return Query(f"({self}) * {factor}")

    def __str__(self) -> str:
        return self.expr

    def _aggregate(self, operator: str, labels: tuple[str, ...]) -> Query:
        by = f" by ({', '.join(_name(label) for label in labels)})" if labels else ""
        return Query(f"{operator}{by} ({self})")


def any_of(queries: Iterable[Query]) -> Query:
    """Join with `or`: the union of the series, the first one winning where label sets are equal."""
    return Query(" or ".join(str(query) for query in queries))


def _name(label: str) -> str:
    if not _LABEL.match(label):
        raise ValueError(f"not a label name: {label!r}")
    return label
