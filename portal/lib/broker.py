"""Whether the broker of hints answers. Nothing waits for it; pages only say so while it is away."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.retry import Retry

SECONDS = 0.5  # for the connection and for its answer
ASK_EVERY = 5.0

_guard = threading.Lock()
_asked_at = float("-inf")
_away_since: datetime | None = None


def away_since() -> datetime | None:
    """When the broker was first seen not to answer; None while it answers. Asks at most once in five seconds."""
    global _asked_at, _away_since
    with _guard:
        if time.monotonic() - _asked_at > ASK_EVERY:
            _away_since = None if answers(settings.REDIS_URL) else _away_since or datetime.now(UTC)
            _asked_at = time.monotonic()
        return _away_since


def answers(url: str) -> bool:
    """True when the server at `url` answers a PING within half a second."""
    client = redis.Redis.from_url(
        url, socket_timeout=SECONDS, socket_connect_timeout=SECONDS, retry=Retry(NoBackoff(), 0)
    )
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()
