"""The table: each address of the site, and who may do what there. A route without a row fails the test, and so does a
row without a route.

One line is enough for a new route: `"/things/{pk}/": page(GET=TEAM, POST=MEMBERS)`.
"""

from __future__ import annotations

from .bodies import PRICED, anew, asked, changed, entered, form, granted, keyed, offered, seen, urgent
from .rules import EVERYBODY, LEADS, MEMBERS, TEAM, Row, api, may, page
from .table_accounts import ACCOUNTS, ADMIN

PEOPLE = "/people/teams/{slug}/"
PAGES: dict[str, Row] = {
    "/": page(GET=EVERYBODY),
    "/overview/gpus/": page(GET=EVERYBODY),
    "/deployments/": page(GET=EVERYBODY),
    # Strangers are led members of another team here: they may ask, and may not name this one.
    "/deployments/new/": page(GET=EVERYBODY, POST=may(MEMBERS, told="stranger admin", body=form)),
    "/deployments/hub/": page(GET=EVERYBODY),
    "/deployments/preview/": page(POST=may(EVERYBODY, body=form)),
    "/deployments/preflight/": page(POST=may(EVERYBODY, body=form)),
    "/deployments/stop/": page(
        GET=EVERYBODY, POST=may(TEAM, idle="stranger", body=lambda world: {"d": world.chat.pk, "reason": "Enough."})
    ),
    "/deployments/{pk}/": page("chat", GET=TEAM),
    "/deployments/{pk}/edit/": page(
        "chat", GET=MEMBERS, POST=may(MEMBERS, body=lambda world: {**form(world), "base_revision": "1"})
    ),
    "/deployments/{pk}/edit/preflight/": page("chat", POST=may(MEMBERS, body=form)),
    "/deployments/{pk}/edit/preview/": page("chat", POST=may(MEMBERS, body=form)),
    "/deployments/{pk}/logs/": page("chat", GET=TEAM),
    "/deployments/{pk}/revisions/": page("chat", GET=TEAM),
    "/deployments/{pk}/manifests/": page("chat", GET=TEAM),
    "/deployments/{pk}/prompt/": page("chat", GET=TEAM),
    "/deployments/{pk}/stop/": page("chat", GET=TEAM, POST=may(TEAM, body=lambda world: {"reason": "Enough."})),
    "/deployments/{pk}/start/": page("stopped", GET=TEAM, POST=may(TEAM, body=lambda world: {})),
    "/deployments/{pk}/delete/": page("chat", GET=TEAM, POST=may(TEAM, body=lambda world: {"confirm": "chat"})),
    "/catalogue/": page(GET=EVERYBODY),
    "/catalogue/new/": page(GET="admin", POST=may("admin", body=lambda world: {"uri": world.uri})),
    "/catalogue/{pk}/": page("entry", POST=may("admin", body=lambda world: {"do": "pin"})),
    "/catalogue/{pk}/edit/": page("entry", GET="admin", POST=may("admin", body=lambda world: {"name": "Smoll"})),
    "/catalogue/{pk}/remove/": page("entry", GET="admin", POST=may("admin", body=lambda world: {})),
    "/approvals/": page(GET=EVERYBODY),
    "/approvals/waiting/": page(GET=EVERYBODY),
    "/approvals/{pk}/": page(
        "wish", POST=may("admin", told=MEMBERS, body=lambda world: {**seen(world), "verdict": "approve"})
    ),
    "/approvals/policies/": page(GET="admin"),
    "/approvals/policies/{pk}/": page(
        "team", POST=may("admin", body=lambda world: {"policy": "lead", "at_expiry": "keep"})
    ),
    "/approvals/renderings/": page(GET="admin", POST=may("admin", body=anew)),
    "/approvals/selected/": page(
        POST=may("admin", told="stranger member lead", body=lambda world: {"verdict": "approve", "item": world.item})
    ),
    "/approvals/quota/{pk}/": page(
        "quota_request", POST=may("admin", told=MEMBERS, body=lambda world: {"verdict": "approve", "comment": "Yes."})
    ),
    "/approvals/emergencies/{pk}/": page(
        "emergency", POST=may("admin", body=lambda world: {"digest": world.emergency.digest})
    ),
    # For who called it.
    "/approvals/emergencies/{pk}/withdraw/": page("emergency", POST=may("", told="admin", body=lambda world: {})),
    # For admins who wrote the revision: none of the walk did.
    "/approvals/{pk}/emergency/": page("burning", POST=may("", told=TEAM, body=urgent)),
    "/quotas/": page(GET=EVERYBODY),
    "/quotas/ask/": page(
        POST=may("lead", told="stranger member admin", body=lambda world: {**granted(world), "why": "Load."})
    ),
    "/quotas/requests/{pk}/withdraw/": page(
        "quota_request", POST=may("lead", told="member admin", body=lambda world: {})
    ),
    "/quotas/grants/{pk}/": page("grant", POST=may("admin", body=lambda world: {"gpus": "20", "comment": "More."})),
    "/quotas/grant/": page(POST=may("admin", body=granted)),
    "/flavors/": page(GET="admin"),
    "/flavors/new/": page(GET="admin", POST=may("admin", body=lambda world: {**offered(world), **PRICED})),
    "/flavors/{slug}/": page(
        "named_flavor", GET="admin", POST=may("admin", body=lambda world: {**offered(world), **PRICED, **world.kind})
    ),
    "/packaging/": page(GET=EVERYBODY),
    "/engines/": page(GET="admin"),
    "/engines/{slug}/": page("named_engine", GET="admin", POST=may("admin", body=lambda world: {"plugins": ["gguf"]})),
    "/capacity/": page(GET=EVERYBODY),
    "/cluster/": page(GET="admin"),
    "/audit/": page(GET=may("lead stranger admin", former=404, staff=404)),
    "/people/": page(GET=EVERYBODY, POST=may("admin", body=lambda world: {"slug": "fresh", "name": "Fresh"})),
    "/people/accounts/": page(GET="admin"),
    "/people/accounts/{pk}/": page(
        "account", GET="admin", POST=may("admin", body=lambda world: {"do": "end-sessions"})
    ),
    "/people/groups/": page(
        GET="admin", POST=may("admin", body=lambda world: {"group": "g", "team": "search", "role": "member"})
    ),
    "/people/groups/{pk}/remove/": page("group_rule", GET="admin", POST=may("admin", body=lambda world: {})),
    "/people/invitations/{pk}/revoke/": page(
        "invitation", POST=may("lead admin", told="stranger member", body=lambda world: {})
    ),
    f"{PEOPLE}": page(GET=TEAM),
    f"{PEOPLE}archive/": page(GET="admin", POST=may("admin", body=lambda world: {"confirm": "empty"})),
    f"{PEOPLE}invitations/": page(POST=may(LEADS, body=lambda world: {"role": "member", "days": "7"})),
    f"{PEOPLE}members/": page(POST=may(LEADS, body=lambda world: {"username": "stranger", "role": "member"})),
    f"{PEOPLE}members/{{pk}}/remove/": page("membership", GET=LEADS, POST=may(LEADS, body=lambda world: {})),
    f"{PEOPLE}members/{{pk}}/role/": page("membership", POST=may(LEADS, body=lambda world: {"role": "lead"})),
    f"{PEOPLE}rename/": page(POST=may(LEADS, body=lambda world: {"name": "Search and find"})),
    "/notices/": page(GET=EVERYBODY),
    "/notices/bell/": page(GET=EVERYBODY),
    "/notices/read/": page(POST=may(EVERYBODY, body=lambda world: {})),
    "/notices/{pk}/read/": page("notice", POST=may("member", body=lambda world: {})),
    "/account/mail/": page(POST=may(EVERYBODY, body=lambda world: {"mail_notices": ""})),
    "/keys/": page(GET=EVERYBODY),
    "/keys/new/": page(GET=EVERYBODY, POST=may(TEAM, body=keyed)),
    "/keys/{pk}/rotate/": page(
        "key", GET=LEADS, POST=may(LEADS, told="member", body=lambda world: {"grace_hours": "1"})
    ),
    "/keys/{pk}/revoke/": page("key", GET=LEADS, POST=may(LEADS, told="member", body=lambda world: {})),
    "/credentials/": page(GET=EVERYBODY),
    "/credentials/new/": page(GET=EVERYBODY, POST=may(LEADS, told="member", body=entered)),
    "/credentials/{pk}/rotate/": page(
        "credential", GET=LEADS, POST=may(LEADS, told="member", body=lambda world: {"token": "hf_of_somebody"})
    ),
    "/credentials/{pk}/delete/": page("credential", GET=LEADS, POST=may(LEADS, told="member", body=lambda world: {})),
    "/account/": page(
        GET=EVERYBODY, POST=may(EVERYBODY, body=lambda world: {"name": "t", "scopes": "read", "days": "9"})
    ),
    "/account/tokens/{pk}/revoke/": page(
        "token", GET="lead", POST=may("lead admin", told="stranger member", body=lambda world: {})
    ),
    "/metrics/": page(GET=EVERYBODY),
    "/metrics/charts/": page(GET=EVERYBODY),
    "/metrics/columns/": page(GET=EVERYBODY),
    "/metrics/badge/": page(GET=EVERYBODY),
    "/deployments/{pk}/metrics/": page("chat", GET=TEAM),
    "/deployments/{pk}/charts/": page("chat", GET=TEAM),
    "/deployments/{pk}/charts/{panel}.csv": page("chat", GET=TEAM),
}

ONE = "/api/v1/deployments/{pk}/"
API: dict[str, Row] = {
    "/api/v1/schema/": api(GET=may(EVERYBODY, token_invoke=200)),
    "/api/v1/deployments/": api(GET=EVERYBODY, POST=may(MEMBERS, unknown="stranger admin", body=asked)),
    "/api/v1/deployments/stop/": api(
        POST=may(TEAM, idle="stranger", body=lambda world: {"ids": [world.chat.pk], "reason": "Enough."})
    ),
    ONE: api(
        "chat",
        GET=TEAM,
        PUT=may(MEMBERS, told="admin", body=changed),
        PATCH=may(MEMBERS, told="admin", body=changed),
        DELETE=may(TEAM, body=lambda world: {}),
    ),
    f"{ONE}metrics/": api("chat", GET=may(TEAM, token_invoke=404)),
    f"{ONE}emergency/": api("burning_of", POST=may("", told=TEAM, scope="approve", body=urgent)),
    f"{ONE}approve/": api("wish_of", POST=may("admin", told=MEMBERS, scope="approve", body=seen)),
    f"{ONE}reject/": api("wish_of", POST=may("lead admin", told="member", scope="approve", body=seen)),
    f"{ONE}release/": api(
        "stopped", POST=may("admin", told=MEMBERS, scope="approve", body=lambda world: {"reason": "Gone."})
    ),
    f"{ONE}manifests/": api("chat", GET=TEAM),
    f"{ONE}revisions/": api("chat", GET=TEAM),
    f"{ONE}revisions/{{number}}/": api("chat", GET=TEAM),
    f"{ONE}start/": api("stopped", POST=may(TEAM, body=lambda world: {})),
    f"{ONE}stop/": api("chat", POST=may(TEAM, body=lambda world: {"reason": "Enough."})),
    "/api/v1/preflight/": api(POST=may(EVERYBODY, body=asked)),
    "/api/v1/teams/": api(
        GET=EVERYBODY,
        POST=may(
            "admin",
            told="stranger member lead",
            scope="approve",
            body=lambda world: {"slug": "fresh", "name": "Fresh"},
        ),
    ),
    "/api/v1/teams/{pk}/": api(
        "named_team", GET=TEAM, PATCH=may(LEADS, told="member", body=lambda world: {"name": "Search and find"})
    ),
    "/api/v1/teams/{slug}/members/": api(
        GET=TEAM, POST=may(LEADS, told="member", body=lambda world: {"username": "stranger", "role": "member"})
    ),
    "/api/v1/teams/{slug}/members/{pk}/": api(
        "membership",
        GET=TEAM,
        PATCH=may(LEADS, told="member", body=lambda world: {"role": "lead"}),
        DELETE=may(LEADS, told="member", body=lambda world: {}),
    ),
    "/api/v1/invitations/": api(
        GET=may(EVERYBODY, scope="write"),
        POST=may(LEADS, told="member", unknown="stranger", body=lambda world: {"team": "search", "role": "member"}),
    ),
    "/api/v1/invitations/{pk}/": api("invitation", DELETE=may(LEADS, body=lambda world: {})),
    "/api/v1/accounts/": api(GET=EVERYBODY),
    "/api/v1/accounts/{pk}/": api(
        "account",
        GET="admin",
        PATCH=may("admin", scope="approve", body=lambda world: {"active": False, "reason": "They left."}),
    ),
    "/api/v1/accounts/{pk}/end-sessions/": api("account", POST=may("admin", scope="approve", body=lambda world: {})),
    "/api/v1/group-rules/": api(
        GET=EVERYBODY,
        POST=may(
            "admin",
            told=MEMBERS,
            unknown="stranger",
            scope="approve",
            body=lambda world: {"group": "g", "team": "search", "role": "member"},
        ),
    ),
    "/api/v1/group-rules/{pk}/": api(
        "group_rule", GET="admin", DELETE=may("admin", scope="approve", body=lambda world: {})
    ),
    "/api/v1/teams/{slug}/policy/": api(
        GET=TEAM, PATCH=may("admin", told=MEMBERS, scope="approve", body=lambda world: {"policy": "lead"})
    ),
    "/api/v1/approvals/": api(GET=may(EVERYBODY, scope="approve")),
    "/api/v1/approvals/decide/": api(
        POST=may(
            "admin",
            idle="stranger member lead",
            scope="approve",
            body=lambda world: {
                "approve": True,
                "items": [{"kind": "deployment", "id": world.wish.pk, "digest": world.wish.digest}],
            },
        )
    ),
    "/api/v1/emergencies/": api(GET=may(EVERYBODY, scope="approve")),
    "/api/v1/emergencies/{pk}/sign/": api(
        "emergency", POST=may("admin", scope="approve", body=lambda world: {"digest": world.emergency.digest})
    ),
    # For who called it.
    "/api/v1/emergencies/{pk}/withdraw/": api(
        "emergency", POST=may("", told="admin", scope="approve", body=lambda world: {})
    ),
    "/api/v1/endpoint-keys/": api(
        GET=EVERYBODY,
        POST=may(
            LEADS,
            told="member",
            unknown="stranger",
            body=lambda world: {"team": "search", "name": "another", "every_deployment": True},
            token_write=403,
        ),
    ),
    "/api/v1/endpoint-keys/{pk}/": api("key", GET=TEAM, DELETE=may(LEADS, told="member", body=lambda world: {})),
    "/api/v1/endpoint-keys/{pk}/rotate/": api(
        "key", POST=may(LEADS, told="member", body=lambda world: {}, token_write=403)
    ),
    "/api/v1/endpoint-keys/{pk}/usage/": api("key", GET=TEAM),
    "/api/v1/credentials/": api(GET=EVERYBODY, POST=may(LEADS, told="member", unknown="stranger", body=entered)),
    "/api/v1/credentials/{pk}/": api("credential", GET=TEAM, DELETE=may(LEADS, told="member", body=lambda world: {})),
    "/api/v1/credentials/{pk}/rotate/": api(
        "credential", POST=may(LEADS, told="member", body=lambda world: {"token": "hf_of_somebody"})
    ),
    "/api/v1/flavors/": api(
        GET=EVERYBODY, POST=may("admin", told="stranger member lead", scope="approve", body=offered)
    ),
    "/api/v1/flavors/{pk}/": api(
        "named_flavor",
        GET=EVERYBODY,
        PATCH=may("admin", told="stranger member lead", scope="approve", body=lambda world: {"name": "H100 SXM"}),
    ),
    "/api/v1/flavors/proposals/": api(GET=may("admin", told="stranger member lead", scope="approve")),
    "/api/v1/quota-requests/": api(
        GET=EVERYBODY,
        POST=may(
            "lead", told="member", unknown="stranger admin", body=lambda world: {**granted(world), "why": "Load."}
        ),
    ),
    "/api/v1/quota-requests/{pk}/": api("quota_request", GET=TEAM),
    "/api/v1/quota-requests/{pk}/decide/": api(
        "quota_request",
        POST=may("admin", told=MEMBERS, scope="approve", body=lambda world: {"grant": True, "comment": "Yes."}),
    ),
    "/api/v1/quota-requests/{pk}/withdraw/": api(
        "quota_request", POST=may("lead", told="member admin", body=lambda world: {})
    ),
    "/api/v1/quota-grants/": api(
        GET=EVERYBODY,
        POST=may("admin", told=MEMBERS, unknown="stranger", scope="approve", body=granted),
    ),
    "/api/v1/quota-grants/{pk}/": api(
        "grant",
        GET=TEAM,
        PATCH=may(
            "admin",
            told="stranger member lead",
            scope="approve",
            body=lambda world: {"gpus": 20},
            token_admin_elsewhere=404,
        ),
    ),
    "/api/v1/quota-requests/{pk}/context/": api("quota_request", GET=TEAM),
    "/api/v1/quotas/": api(GET=EVERYBODY),
    "/api/v1/quotas/holders/": api(GET=EVERYBODY),
    "/api/v1/quotas/ends/": api(GET=EVERYBODY),
    "/api/v1/capacity/": api(GET=EVERYBODY),
    # An admin's token that is bound to other teams has those rendered anew.
    "/api/v1/renderings/": api(
        GET=may("admin", told="stranger member lead", scope="approve", token_admin_elsewhere=200)
    ),
    "/api/v1/renderings/wave/": api(
        POST=may(
            "admin",
            told="stranger member lead",
            scope="approve",
            body=lambda world: {"items": [{"id": world.dated.pk, "digest": world.dated.approved.digest}]},
            # Of what its teams do not have, each item is told to be missing.
            token_admin_elsewhere=200,
        )
    ),
    "/api/v1/reservations/": api(GET=EVERYBODY),
    "/api/v1/catalog/": api(
        GET=EVERYBODY,
        POST=may("admin", told="stranger member lead", scope="approve", body=lambda world: {"uri": world.uri}),
    ),
    "/api/v1/catalog/{pk}/": api(
        "named_entry",
        GET=EVERYBODY,
        PATCH=may("admin", told="stranger member lead", scope="approve", body=lambda world: {"pinned": True}),
        DELETE=may("admin", told="stranger member lead", scope="approve", body=lambda world: {}),
    ),
    "/api/v1/events/": api(GET=EVERYBODY),
    "/api/v1/events/export/": api(
        GET=may("stranger lead admin", told="member", former=403, staff=403, token_elsewhere=403)
    ),
    "/api/v1/profiles/": api(GET=EVERYBODY),
    "/api/v1/profiles/{pk}/": api(
        "named_engine",
        GET=EVERYBODY,
        PATCH=may("admin", told="stranger member lead", scope="approve", body=lambda world: {"plugins": ["gguf"]}),
    ),
    "/api/v1/tokens/": api(
        GET=EVERYBODY, POST=may(EVERYBODY, body=lambda world: {"name": "t", "scopes": ["read"], "days": 9})
    ),
    "/api/v1/tokens/{pk}/": api("token", DELETE=may("lead admin", body=lambda world: {})),
    "/api/v1/notices/": api(GET=EVERYBODY),
    "/api/v1/notices/{pk}/": api("notice", GET="member"),
    "/api/v1/notices/{pk}/read/": api("notice", POST=may("member", body=lambda world: {})),
    "/api/v1/notices/read/": api(POST=may(EVERYBODY, body=lambda world: {})),
    "/api/v1/whoami/": api(GET=EVERYBODY),
}

TABLE: dict[str, Row] = {**PAGES, **API, **ACCOUNTS, **ADMIN}

# What answers a body and stores nothing.
HARMLESS = frozenset(
    {
        "/deployments/preview/",
        "/deployments/preflight/",
        "/deployments/{pk}/edit/preview/",
        "/deployments/{pk}/edit/preflight/",
        "/api/v1/preflight/",
    }
)
# What writes something, and no line into the audit, and why.
READ = "what somebody has read concerns nobody else"
UNHEARD = {
    "/notices/read/": READ,
    "/notices/{pk}/read/": READ,
    "/api/v1/notices/read/": READ,
    "/api/v1/notices/{pk}/read/": READ,
}
# What takes a POST and no body of its own, and why.
BODILESS = {
    "/accounts/": "sends on to another page",
    "/accounts/reauthenticate/": "writes into the session alone",
    "/accounts/2fa/authenticate/": "in the middle of a sign-in alone (tests/portal/test_second_factor.py)",
    "/accounts/2fa/reauthenticate/": "writes into the session alone",
    "/accounts/2fa/recovery-codes/download/": "gives a file",
    "/django-admin/login/": "sends on to the sign-in of the site",
    "/django-admin/logout/": "ends the session, as the row of the site's own page does",
}
