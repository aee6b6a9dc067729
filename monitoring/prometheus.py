"""The one door to Prometheus: bounded in time, points and load, shared by everybody who looks at the same chart."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import requests
from django.conf import settings
from prometheus_api_client import PrometheusApiClientException, PrometheusConnect
from urllib3.util.retry import Retry

from portal.lib.promql import Query

logger = logging.getLogger(__name__)

MAX_POINTS = 600
TIMEOUT = (1.0, 5.0)  # seconds to connect, to read
# After a failure nobody asks again for this long: a page of sixteen charts must not wait sixteen times.
BREAK_SECONDS = 5.0


class PrometheusUnreachableError(Exception):
    """Prometheus did not answer, or not in time."""


class QueryRefusedError(Exception):
    """Prometheus answered that it cannot run this query."""


@dataclass(frozen=True)
class Range:
    """A time range aligned to its step, in epoch seconds. `step` is at least the scrape interval."""

    start: int
    end: int
    step: int

    @classmethod
    def last(cls, seconds: int, now: float | None = None, points: int = 180) -> Range:
        """The last `seconds`, at most `points` (and never more than MAX_POINTS) steps."""
        scrape = settings.PROMETHEUS_SCRAPE_INTERVAL
        step = max(scrape, math.ceil(seconds / min(points, MAX_POINTS)))
        step = math.ceil(step / scrape) * scrape
        end = int((now if now is not None else time.time()) // step) * step
        return cls(end - math.floor(seconds / step) * step, end, step)

    @property
    def window(self) -> int:
        """Seconds that rate() looks back: two samples must always fall into it."""
        return rate_window(self.step)


def rate_window(step: int = 0) -> int:
    scrape = settings.PROMETHEUS_SCRAPE_INTERVAL
    return max(4 * scrape, step + scrape)


@dataclass(frozen=True)
class Series:
    """Labels and (epoch seconds, value) pairs. NaN and infinity, which JSON does not know, are None."""

    labels: dict[str, str]
    points: list[tuple[int, float | None]]

    @property
    def name(self) -> str:
        """What the panel's query called this line."""
        return self.labels.get("series", "")

    @property
    def last(self) -> float | None:
        return self.points[-1][1] if self.points else None


@dataclass
class _Shared:
    """One answer that many wait for."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    until: float = 0.0
    value: list[Series] = field(default_factory=list)


class Prometheus:
    """Runs queries. Safe for threads: each has its own session, all share the answers."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._clock = clock
        self._local = threading.local()
        self._guard = threading.Lock()
        self._shared: dict[tuple[str, int, int, int], _Shared] = {}
        self._broken_until = 0.0
        self.away_since: datetime | None = None  # when the first of the failures in a row was seen
        self.queries = 0  # sent over the wire; tests and benchmarks count them

    def instant(self, query: Query, ttl: float = 5.0) -> list[Series]:
        """Evaluate now. Raises PrometheusUnreachableError or QueryRefusedError."""
        return self._once((str(query), 0, 0, 0), ttl, lambda client: client.custom_query(str(query), timeout=TIMEOUT))

    def range(self, query: Query, over: Range) -> list[Series]:
        """Evaluate at each step of `over`; one flight for all who ask for the same panel and step."""

        def fetch(client: PrometheusConnect) -> list[dict[str, object]]:
            start, end = datetime.fromtimestamp(over.start, UTC), datetime.fromtimestamp(over.end, UTC)
            answer: list[dict[str, object]] = client.custom_query_range(
                str(query), start_time=start, end_time=end, step=str(over.step), timeout=TIMEOUT
            )
            return answer

        return self._once((str(query), over.start, over.end, over.step), over.step, fetch)

    def reachable(self) -> bool:
        """Whether Prometheus answers a trivial query."""
        try:
            self.instant(Query("vector(1)"))
        except (PrometheusUnreachableError, QueryRefusedError):
            return False
        return True

    def _once(
        self, key: tuple[str, int, int, int], ttl: float, fetch: Callable[[PrometheusConnect], list[dict[str, object]]]
    ) -> list[Series]:
        with self._guard:
            self._forget_stale()
            shared = self._shared.setdefault(key, _Shared())
        with shared.lock:
            if shared.until <= self._clock():
                shared.value = self._fetch(fetch)
                shared.until = self._clock() + ttl
            return shared.value

    def _fetch(self, fetch: Callable[[PrometheusConnect], list[dict[str, object]]]) -> list[Series]:
        if self._clock() < self._broken_until:
            raise PrometheusUnreachableError("Prometheus did not answer a moment ago.")
        self.queries += 1
        try:
            found = [_series(item) for item in fetch(self._client())]
        except PrometheusApiClientException as error:
            if "HTTP Status Code 5" in str(error):
                raise self._broke(error) from error
            self.away_since = None
            raise QueryRefusedError(str(error)[:300]) from error
        except (requests.RequestException, ValueError) as error:
            raise self._broke(error) from error
        self.away_since = None
        return found

    def _broke(self, error: Exception) -> PrometheusUnreachableError:
        self._broken_until = self._clock() + BREAK_SECONDS
        self.away_since = self.away_since or datetime.now(UTC)
        logger.warning("prometheus at %s: %s", self.url, error)
        return PrometheusUnreachableError("Prometheus does not answer.")

    def _client(self) -> PrometheusConnect:
        if not hasattr(self._local, "client"):
            # Identity: Prometheus's own compression costs more than the bytes on a short way.
            self._local.client = PrometheusConnect(
                self.url, headers={"Accept-Encoding": "identity"}, retry=Retry(total=0), timeout=TIMEOUT
            )
        return self._local.client

    def _forget_stale(self) -> None:
        if len(self._shared) > 500:
            now = self._clock()
            self._shared = {key: value for key, value in self._shared.items() if value.until > now}


def _series(item: dict[str, object]) -> Series:
    labels = item["metric"]
    values = item.get("values") or [item["value"]]
    assert isinstance(labels, dict)
    assert isinstance(values, list)
    return Series(dict(labels), [(int(float(at)), _number(value)) for at, value in values])


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


_door: Prometheus | None = None
_door_guard = threading.Lock()


def prometheus() -> Prometheus:
    """The process's door, for the address in the settings."""
    global _door
    with _door_guard:
        if _door is None or _door.url != settings.PROMETHEUS_URL:
            _door = Prometheus(settings.PROMETHEUS_URL)
        return _door
