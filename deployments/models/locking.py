"""The one way to lock a row and read it: a statement that waits for a lock sees everything else as it was before."""

from __future__ import annotations

from typing import Self, TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model)


class HeldRows(models.QuerySet[M]):
    """Rows that a service locks one at a time, and reads with their relations only once it has them."""

    def hold(self, pk: int, *relations: str) -> M | None:
        """Lock the row until the transaction ends, then read it; None where this queryset does not have it.

        Two statements. Who waits for a lock gets the newest version of the locked row, but rows joined to it come
        from before the wait: a foreign key that another transaction has moved meanwhile would be read as none.
        """
        # Whether it belongs to this queryset is asked in both: nobody waits for, or holds up, a row that is not theirs.
        # Not first(): what Django does to order one row takes it longer than the rest.
        row = self.filter(pk=pk)
        if not list(row._locking().values_list("pk")):
            return None
        return next(iter(row.select_related(*relations) if relations else row), None)

    def _locking(self) -> Self:
        return self.order_by().select_related(None).select_for_update(no_key=True, of=("self",))
