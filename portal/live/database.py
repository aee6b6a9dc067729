"""Django's database from asyncio: a few threads, and every connection goes back to the pool at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from django.db import connection

P = ParamSpec("P")
T = TypeVar("T")

# Fewer than the pool holds, so that streams never keep pages from the database.
THREADS = 4
_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="live-db")


async def in_database(run: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call `run` in a thread of its own kind and give its connection back, whatever happens."""

    def call() -> T:
        try:
            return run(*args, **kwargs)
        finally:
            # In the same thread: elsewhere it would close another thread's connection.
            connection.close()

    return await asyncio.get_running_loop().run_in_executor(_threads, call)
