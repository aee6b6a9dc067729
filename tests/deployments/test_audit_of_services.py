"""Every service that writes leaves a line in the audit: who, what, and from what to what.

The services are found by reading their source: whatever stores rows, itself or through others, stands in one of the
tables here and in `audited`. A new one that stands in none fails here, with the sentence that says what to add.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from deployments import services
from deployments.models import (
    Event,
    Flavor,
    Team,
    User,
)
from deployments.services import (
    lifecycle,
)
from tests.deployments import factories as make
from tests.deployments import sealing_keys
from tests.deployments.audited import AUDITED
from tests.deployments.audited_world import World

STORES = {"create", "save", "update", "delete", "bulk_create", "bulk_update", "update_or_create", "get_or_create"}
Name = tuple[str, str]


@pytest.fixture
def world(
    team: Team, ann: User, alice: User, bob: User, carol: User, hub: Any, spec: dict[str, Any], settings: Any
) -> World:
    sealing_keys.use_keys(settings)
    h100 = Flavor.objects.get(slug="h100-80gb")
    return World(team, ann, alice, bob, carol, make.make_user("dora", admin=True), h100, spec)


# Kinds of lines that tell of no value that changed: something was asked for, said, or happened.
NOTHING_CHANGED = {
    "credential_expired",  # The value was never in use.
    "emergency_called",
    "emergency_withdrawn",
    "gpus_forced",  # The ledger has the balance before and after.
    "key_ends_soon",
    "key_maker_left",  # The line of who left is another.
    "quota_ended",  # Nobody changed the grant: its day came.
    "password_changed",
    "sign_in_refused",
    "signed_in",
    "signed_out",
}
# What stores rows, and needs no line of its own: service → why.
INNER: dict[str, str] = {
    "adapter_checks.look_up": "remembers what the hub said of an adapter",
    "previews.preview": "asks the hub, and stores nothing of the wish",
    "requests.look_up": "asks the two above, which remember",
    "approvals.by_policy": "its caller is submit or revise, and record writes the line",
    "approvals.record": "the line of decide, sign and by_policy is written here",
    "authority.void_if_fallen": "writes its line; called where somebody loses a role",
    "authority.withdraw": "void_if_fallen writes the line",
    "credentials.end_all_of": "the line of archive counts them",
    "events.record": "is the audit",
    "grants.follow": "wakes workers",
    "holds.account_of": "makes the row that sums a ledger",
    "holds.reserve": "the ledger; callers write the line",
    "holds.room_for": "reads under a lock; as account_of where there is none",
    "holds.take": "as reserve",
    "idempotency.claim": "about requests, not about anything of anybody",
    "idempotency.forget_old": "as claim",
    "idempotency.give_back": "as claim",
    "idempotency.settle": "as claim",
    "ledger.release": "workers; writes the line gpus_released",
    "lifecycle.stop_by_itself": "its caller is follow_dates, and writes the line stopped",
    "inserting.insert": "stores what its callers made, who write the line",
    "invitation_mails.send": "what became of a mail is on the invitation",
    "mails.send": "what became of a mail is on the notice",
    "memberships.end": "the line of remove, leave and archive is written here",
    "memberships.end_words_of": "writes its line; called where somebody loses a role",
    "memberships.write": "the line of add, change and accept is written here",
    "model_checks.look_up": "remembers what the hub said",
    "notice_ends.settle": "notices of what was decided",
    "notices.forget_read": "read notices that are old",
    "notices.notify": "is told by the audit",
    "notices.read": "one's own reading",
    "notices.read_all": "one's own reading",
    "probes.probe": "workers; states tells what it means",
    "seals.seal": "seals the audit, and says so in the log: a line of its own would need the next seal",
    "seals.seal_all": "as seal",
    "rendering.store": "its callers write the line, with the digest",
    "requests.preflight": "stores nothing but what the hub said",
    "states.move": "writes lines of the kind state; callers say what they moved",
    "states.refresh": "writes lines of the kind state",
    "states.refresh_many": "as refresh",
    "telling.tell": "stores the lines of the audit",
    "telling.together": "as tell",
    "tokens.authenticate": "when a token was last used",
    "tries.forget_old": "as give_back",
    "tries.give_back": "a count; the line of the try is sign_ins.refused or signed_in",
    "waiting.accept": "writes the lines gpus_reserved and waits_for_quota",
    "waiting.wake": "as accept",
    "waiting.wake_all": "as accept",
    "waiting.wake_later": "as accept",
    "waits.waiting_of": "reads; makes the row that sums a ledger where there is none",
}
# Modules in which workers note what they do on the cluster; its outcome is told by lines of the kinds applied, healed,
# restored, deleted and state (of Secrets credential_ready, _tested and _refused), which tests of the reconciler hold.
WORKERS = {"convergence", "credential_records"}
# Endpoints' gateway: many times a second, counted by the hour.
COUNTED = {"endpoint_keys.authenticate", "invoke.admit", "usage.ask", "usage.report"}


def writers() -> set[str]:
    """Public functions of the services that store rows, themselves or through a function that does."""
    stores: set[Name] = {("inserting", "insert")}
    uses: dict[Name, set[Name]] = {}
    for path in sorted(Path(services.__path__[0]).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        modules, names = _imported(tree)
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef):
                continue
            here = (path.stem, node.name)
            uses[here] = set()
            for inner in ast.walk(node):
                if isinstance(inner, ast.Attribute):
                    owner = inner.value.id if isinstance(inner.value, ast.Name) else ""
                    if owner in modules:
                        uses[here].add((modules[owner], inner.attr))
                    elif inner.attr in STORES and isinstance(inner.ctx, ast.Load) and not _of_plain(inner):
                        stores.add(here)
                elif isinstance(inner, ast.Name):
                    if inner.id == "in_transaction":
                        stores.add(here)
                    uses[here].add(names.get(inner.id, (path.stem, inner.id)))
    while more := {name for name, used in uses.items() if name not in stores and used & stores}:
        stores |= more
    return {f"{module}.{name}" for module, name in stores if not name.startswith("_") and module not in WORKERS}


def _imported(tree: ast.Module) -> tuple[dict[str, str], dict[str, Name]]:
    modules: dict[str, str] = {}
    names: dict[str, Name] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("deployments.services"):
            for alias in node.names:
                if node.module == "deployments.services":
                    modules[alias.asname or alias.name] = alias.name
                else:
                    names[alias.asname or alias.name] = (str(node.module).rpartition(".")[2], alias.name)
    return modules, names


def _of_plain(node: ast.Attribute) -> bool:
    """True for methods of plain values that are called as those that store."""
    return isinstance(node.value, ast.Name) and node.value.id in {"values", "found", "context", "query", "hashlib"}


def test_every_service_that_writes_is_declared() -> None:
    declared = AUDITED.keys() | INNER.keys() | COUNTED
    new = sorted(writers() - declared)

    assert not new, (
        f"These services store rows and stand in no table of this test: {', '.join(new)}. Have each record an event "
        "with its actor and events.changed(before, after), and add it to AUDITED with a function that carries it out; "
        "or, where a caller records it, to INNER with the reason."
    )


def test_no_table_names_a_service_that_is_gone() -> None:
    assert sorted((AUDITED.keys() | INNER.keys() | COUNTED) - writers()) == []
    assert not AUDITED.keys() & (INNER.keys() | COUNTED)


@pytest.mark.parametrize("service", sorted(AUDITED))
def test_a_service_leaves_a_line_with_who_and_what_changed(world: World, service: str) -> None:
    act, kind = AUDITED[service]
    before = Event.objects.order_by("-pk").values_list("pk", flat=True).first() or 0

    actor = act(world)

    lines = Event.objects.filter(pk__gt=before, kind=kind)
    assert lines, f"{service} leaves no line of the kind {kind}"
    line = lines[0]
    assert line.actor == actor
    assert line.message
    if kind in NOTHING_CHANGED:
        return
    was, now = line.data.get("before", {}), line.data.get("after")
    assert now or was, f"{service}: its line does not say what changed"
    assert was != now


def test_what_is_rolled_back_leaves_no_line(world: World) -> None:
    chat = world.runs()
    count = Event.objects.count()
    with transaction.atomic():
        lifecycle.stop(principal=world.of(world.ann), deployment=chat)
        assert Event.objects.count() > count
        transaction.set_rollback(True)

    assert Event.objects.count() == count
