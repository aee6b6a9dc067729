"""The ledger's trigger as it is, and with one of its guards taken out; the last two must be caught by the referee."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

POST: str = import_module("deployments.migrations.0012_balance_first").POST
LOCK = "SELECT * INTO STRICT account FROM deployments_quotaaccount WHERE id = NEW.account_id FOR NO KEY UPDATE;"
UNLOCKED = "SELECT * INTO STRICT account FROM deployments_quotaaccount WHERE id = NEW.account_id;"
CONDITION = "IF NEW.delta > 0 THEN"
NEVER = "IF false THEN"


@dataclass(frozen=True)
class Guard:
    """How a take is guarded: in the trigger by a lock and a condition, in the client by a lock before it looks."""

    name: str
    lock_in_trigger: bool
    condition_in_trigger: bool
    lock_in_client: bool
    look_in_client: bool
    holds: bool  # whether it is meant to

    def sql(self) -> str:
        """The trigger's function of this guard, to be put in place of the shipped one."""
        function = POST
        for wanted, text, instead in (
            (self.lock_in_trigger, LOCK, UNLOCKED),
            (self.condition_in_trigger, CONDITION, NEVER),
        ):
            if text not in function:
                raise RuntimeError(f"the ledger's trigger has no “{text}” any more")
            if not wanted:
                function = function.replace(text, instead, 1)
        return function


TRIGGER = Guard("trigger alone, as shipped", True, True, False, False, holds=True)
LOCK_ALONE = Guard("row lock alone", False, False, True, True, holds=True)
CONDITION_ALONE = Guard("condition without a lock", False, True, False, False, holds=False)
LOOK_ALONE = Guard("look, then take", False, False, False, True, holds=False)
EACH = (TRIGGER, LOCK_ALONE, CONDITION_ALONE, LOOK_ALONE)
