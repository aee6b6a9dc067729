"""The request form: it holds one `DeploymentSpec`, and puts every finding beside the field that fixes it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from django import forms

from deployments.engine.plugins import Plugin, plugins_from
from deployments.findings import Finding, field_of
from deployments.forms import engine_fields
from deployments.forms.adapters import AdapterTextError, format_adapters, parse_adapters
from deployments.forms.findings import tidied
from deployments.forms.flags import FlagTextError, format_flags, has_line, parse_flags, with_line
from deployments.forms.roles import ROLES, RoleFields, initial_of_roles, of_role, role_data
from deployments.forms.usual import keep_in_order
from deployments.forms.values import as_value, not_a, shown, text_of
from deployments.models import Credential, EngineProfile, Flavor, Principal, Team
from deployments.sources.oci import FOLDER, SCHEME
from deployments.spec import (
    MAX_FOLDER,
    MAX_LABEL,
    MAX_NAME,
    MAX_NOTE,
    MAX_REVISION,
    MAX_URI,
    DeploymentSpec,
    Strategy,
)
from deployments.spec_errors import FieldError, parse_spec

CACHES = [("", "By each replica, as it starts"), ("claim", "Ahead, into a volume claim that all replicas mount")]
STRATEGIES = [
    ("standard", "Standard", "One pool of replicas that all serve alike."),
    ("disaggregated", "Disaggregated", "Prompts and answers are computed by pods of their own."),
    ("oci-volume", "OCI volume", "Weights come as an image that nodes keep: a fast start."),
]
SURGES = [
    ("0", "Replace pods in place: takes no GPU more, interrupts one that runs alone"),
    ("1", "Start the new pod first: no interruption, takes its GPUs while it changes"),
]
# Lists whose options say more than their values.
OPTIONS: Mapping[str, Iterable[tuple[str, ...]]] = {"surge": SURGES, "source_cache": CACHES, "strategy": STRATEGIES}
# Of a choice that is none of those offered so much is shown again.
MOST_OF_CHOICE = 64
# What somebody may have typed or pasted comes back whole, also where it is too much for its field.
KEPT_WHOLE = 16_000
# Refused for what the team or the GPU has, not for what was typed.
NO_MISTAKE = frozenset({"memory", "quota_none", "quota_exceeded", "source_gated"})
REQUIRED = frozenset({"name_required", "required"})
# What is said of a choice that is none, here and by preflight: once is enough.
NO_CHOICE = {
    "team": "You do not belong to a team of this name.",
    "flavor": "There is no flavor of this name.",
    "profile": "There is no engine of this name.",
    "source_cache": "Choose one of those offered.",
    "surge": "Choose one of those offered.",
}
# Of a choice that is none as much is shown as names a thing.
LONGEST_CHOICE = 63
SAID_ALREADY = REQUIRED | frozenset({"team_unknown", "flavor_unknown", "profile_unknown"})


class DeploymentForm(RoleFields):
    """What a team wants to run. Limits are the spec's and preflight's; here text only becomes values.

    Engine flags with a field of their own are those of `engine_fields.FIELDS`.
    """

    team = forms.ModelChoiceField(Team.objects.none(), to_field_name="slug", empty_label=None, label="Team")
    name = forms.CharField(
        max_length=MAX_NAME,
        label="Name",
        strip=True,
        error_messages={"required": "Give it a name, for example “chat”."},
    )
    source_uri = forms.CharField(
        max_length=MAX_URI,
        label="Model",
        strip=True,
        error_messages={"required": "Name the model, for example hf://Qwen/Qwen2.5-7B-Instruct."},
    )
    source_revision = forms.CharField(max_length=MAX_REVISION, label="Version of the model", required=False, strip=True)
    source_folder = forms.CharField(max_length=MAX_FOLDER, label="Folder in the image", required=False, strip=True)
    source_cache = forms.ChoiceField(choices=CACHES, label="Weights are fetched", required=False)
    credential = forms.CharField(max_length=MAX_LABEL, label="Credential", required=False, strip=True)
    strategy = forms.CharField(max_length=40, initial="standard")
    flavor = forms.ModelChoiceField(Flavor.objects.none(), to_field_name="slug", empty_label=None, label="GPU")
    profile = forms.ModelChoiceField(
        EngineProfile.objects.none(), to_field_name="slug", empty_label=None, label="Engine", required=False
    )
    nodes = forms.CharField(max_length=20, label="Nodes per replica", required=False)
    replicas_min = forms.CharField(max_length=20, label="Fewest replicas", required=False)
    replicas_max = forms.CharField(max_length=20, label="Most replicas", required=False)
    surge = forms.ChoiceField(choices=SURGES, label="When a change rolls out", required=False)
    scaling_concurrency = forms.CharField(max_length=20, label="Requests at once per replica", required=False)
    scaling_percent = forms.CharField(max_length=20, label="Percent of that at which one is added", required=False)
    args = forms.CharField(max_length=8000, label="More engine flags", required=False, widget=forms.Textarea)
    adapters = forms.CharField(max_length=6000, label="LoRA adapters", required=False, widget=forms.Textarea)
    note = forms.CharField(max_length=MAX_NOTE, label="Why", required=False, strip=True)

    def __init__(self, *args: Any, principal: Principal, deployment: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.findings: list[Finding] = []
        self.sent = False  # True once somebody pressed the button: then what stops a request is called an error.
        self.deployment = deployment
        self._written: set[str] = set()
        teams = (
            Team.objects.active().filter(pk=deployment.team_id) if deployment else Team.objects.writable_by(principal)
        )
        self._choices("team").queryset = teams.order_by("slug")
        self._choices("flavor").queryset = Flavor.objects.filter(active=True)
        for field in self.fields.values():
            # How long it is nobody knows of what was cut (portal.long_forms).
            field.error_messages["max_length"] = "At most %(limit_value)d characters."
        self._choices("profile").queryset = EngineProfile.objects.offered()
        for name, words in NO_CHOICE.items():
            self.fields[name].error_messages["invalid_choice"] = words
        if deployment:
            self.fields["name"].disabled = True
            self.fields["team"].disabled = True
            self.initial.update(team=deployment.team.slug, name=deployment.name)

    def _choices(self, name: str) -> Any:
        return self.fields[name]

    @cached_property
    def credentials(self) -> list[tuple[str, str]]:
        """Names that may be chosen, with the teams that have one of that name; what was chosen is among them."""
        found: dict[str, list[str]] = {}
        for name, team in (
            Credential.objects.kept()
            .filter(team__in=self._choices("team").queryset.order_by())
            .order_by("name", "team__slug")
            .values_list("name", "team__name")
        ):
            found.setdefault(name, []).append(team)
        chosen = self.text("credential")
        if chosen:
            found.setdefault(chosen, [])
        of = {name: ", ".join(teams) or "no team of yours has it" for name, teams in found.items()}
        return [(name, f"{name} ({teams})") for name, teams in sorted(of.items())]

    @property
    def not_offered(self) -> dict[str, str]:
        """Choices that are none, by field: a list of what is offered would show its first entry in their place."""
        return {name: self.text(name)[:LONGEST_CHOICE] for name in NO_CHOICE if self.has_error(name, "invalid_choice")}

    @cached_property
    def spec(self) -> DeploymentSpec | None:
        """The spec in the form; None when there are errors, which then stand beside their fields.

        Reads without `cleaned_data`, so that half a form still gets what can be said about it.
        """
        self.full_clean()
        spec, errors = parse_spec(self.spec_data, self.version)
        for error in errors:
            field = self._shown_at(error.field) or "args"
            # A required field that is empty already says so.
            if not self.errors.get(field):
                flag = "" if field == error.field or not error.field else f"--{_flag_of(error.field)}: "
                self.add_error(field, flag + error.said)
        return spec if not errors else None

    @cached_property
    def usable(self) -> DeploymentSpec | None:
        """The spec without what is wrong in it, for advice only; None while not even that makes one."""
        if self.spec is not None:
            return self.spec
        data = copy.deepcopy(self.spec_data)
        for error in parse_spec(data)[1]:
            _leave_out(data, error)
        return parse_spec(data)[0]

    @property
    def wrong(self) -> set[str]:
        """Fields whose values are mistakes, so that figures made of them mean nothing."""
        mistakes = (finding for finding in self.findings if finding.is_error and finding.code not in NO_MISTAKE)
        return {*self.errors, *map(self.field_of, mistakes)}

    @cached_property
    def spec_data(self) -> dict[str, Any]:
        """The wish as plain JSON, as far as it can be read; what is no number gets its message here."""
        args = self._args()
        spec: dict[str, Any] = {
            "source": {
                "uri": self._uri(),
                "revision": self.text("source_revision") or None,
                "credential": self.text("credential") or None,
            },
            "strategy": self.text("strategy") or "standard",
            "flavor": self.text("flavor"),
            "engine": {"args": args},
        }
        # The usual folder is nobody's wish, and the field is shown for images alone.
        if self.text("strategy") == Strategy.OCI_VOLUME and self.text("source_folder") not in ("", FOLDER):
            spec["source"]["folder"] = self.text("source_folder")
        # Weights in an image are kept by the nodes, and the field is not shown for them.
        if self.text("source_cache") and self.text("strategy") != Strategy.OCI_VOLUME:
            spec["source"]["cache"] = self.text("source_cache")
        if self.has_roles:
            spec |= {role: role_data(role, self.text, self.add_error) for role in ROLES}
        else:
            spec["replicas"] = {name: self._count(f"replicas_{name}") for name in ("min", "max")}
            if self.text("surge") not in ("", "0"):
                spec["surge"] = self._count("surge")
            if self.text("nodes") and spec["strategy"] == Strategy.STANDARD:
                spec["nodes"] = self._count("nodes")
        if scaling := self._scaling():
            spec["scaling"] = scaling
        if adapters := self._adapters():
            spec["adapters"] = adapters
        profile = self.text("profile") or self._default_profile()
        if profile:
            spec["engine"]["profile"] = profile
        return spec

    @property
    def has_roles(self) -> bool:
        """True while the strategy chosen is the one whose roles have fields of their own."""
        return self.text("strategy") == Strategy.DISAGGREGATED

    def _args(self) -> dict[str, Any]:
        args: dict[str, Any] = {}
        try:
            args = dict(parse_flags(self.text("args")))
        except FlagTextError as error:
            self.add_error("args", str(error))
        self._written = {flag.replace("-", "_") for flag in args}
        for field in engine_fields.FIELDS:
            # Roles split for themselves: the field of both is not shown beside theirs.
            text = "" if field.apart and self.has_roles else self.text(field.name)
            if text and field.flag in args:
                self.add_error("args", f"“--{field.flag}” has a field of its own above: leave it out here.")
            elif text:
                value = as_value(field.kind, text)
                if value is None:
                    self.add_error(field.name, not_a(field.kind, text))
                else:
                    args[field.flag] = value
        return args

    def _adapters(self) -> list[dict[str, Any]]:
        try:
            return parse_adapters(self.text("adapters"))
        except AdapterTextError as error:
            self.add_error("adapters", str(error))
            return []

    def _uri(self) -> str:
        uri = self.text("source_uri")
        if not uri or "://" in uri or uri.startswith("models:/"):
            return uri
        # "Qwen/Qwen2.5-7B-Instruct" is what people copy from a model's page, and from a registry's an image.
        return f"{SCHEME if self.text('strategy') == Strategy.OCI_VOLUME else 'hf://'}{uri}"

    def _scaling(self) -> dict[str, Any]:
        """What was typed about scaling; nothing where the usual targets are left as they are."""
        names = ("concurrency", "percent")
        return {name: self._count(f"scaling_{name}") for name in names if self.text(f"scaling_{name}")}

    def _count(self, name: str) -> Any:
        text = self.text(name)
        value = as_value(int, text) if text else 1
        if value is None:
            self.add_error(name, not_a(int, text))
            return 1
        return value

    def text(self, name: str) -> str:
        """What stands in a field, as it was typed; of too much one character more than the field takes."""
        if self.fields[name].disabled:
            return str(self.initial.get(name, ""))
        return self._typed(name)[: self._most(name) + 1]

    def kept(self, name: str) -> str:
        """What the page shows of a field again: of far too much only what the field takes."""
        if self.fields[name].disabled:
            return self.text(name)
        return self._typed(name)[: self._most(name)] if self._cut(name) else self._typed(name)

    def _typed(self, name: str) -> str:
        return str(self.data.get(self.add_prefix(name), "") or "").strip()

    def _cut(self, name: str) -> bool:
        return len(self._typed(name)) > KEPT_WHOLE

    def _most(self, name: str) -> int:
        return getattr(self.fields[name], "max_length", None) or MOST_OF_CHOICE

    @cached_property
    def profiles(self) -> list[EngineProfile]:
        """The engines that may be chosen, the newest first."""
        return EngineProfile.objects.offered().newest_first()

    @property
    def version(self) -> str:
        """The vLLM version of the engine that is chosen: its flags are what the form offers."""
        chosen = self._profile
        return engine_fields.version_of(self.text("profile"), chosen.version if chosen else "")

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """What the image of the engine that is chosen has besides vLLM."""
        return plugins_from(self._profile.plugins) if self._profile else ()

    @property
    def _profile(self) -> EngineProfile | None:
        chosen: EngineProfile | None = getattr(self, "cleaned_data", {}).get("profile")
        if chosen is None:
            slug = self.text("profile") or self._default_profile()
            chosen = next((each for each in self.profiles if each.slug == slug), None)
        return chosen

    def _default_profile(self) -> str:
        return self.profiles[0].slug if self.profiles else ""

    def add_findings(self, findings: Iterable[Finding]) -> None:
        """Keep what preflight said, and put errors where the form looks for them."""
        self.findings = tidied(findings, sent=self.sent)

    def messages_of(self, name: str) -> list[dict[str, Any]]:
        """Everything to say beside one field: form errors, then findings with their one-click fix."""
        beyond = " Nothing beyond is kept." if self._cut(name) else ""
        errors = [f"{text}{beyond}" for text in self.errors.get(name, ())]
        too_long = len(self.text(name)) > self._most(name)
        # What was made of the beginning of too much says nothing.
        said = [{"severity": "error", "message": text, "set": None} for text in errors[: 1 if too_long else None]]
        texts = {entry["message"] for entry in said}
        for finding in self.findings:
            if said and (too_long or finding.code in SAID_ALREADY):
                continue  # The form's own words say so already.
            if self.field_of(finding) == name and finding.message not in texts:
                said.append(
                    {
                        "severity": finding.severity.value,
                        "message": finding.message,
                        "remedy": finding.remedy,
                        "set": None if finding.value is None else text_of(finding.value),
                        "shown": self._all_shown(finding),
                        "field": finding.field,
                        "sets": _sets(finding),
                    }
                )
        return said

    def _all_shown(self, finding: Finding) -> str:
        """What a fix sets, in words: the value, or of several each with its name."""
        if not finding.also:
            return self._in_words(finding.pointer, finding.value)
        sets = ((finding.pointer, finding.value), *finding.also)
        return ", ".join(f"{at.rpartition('/')[2]} {self._in_words(at, value)}" for at, value in sets)

    def _in_words(self, pointer: str, value: object) -> str:
        """A value as its field says it: of a list the option's words, up to where these begin to explain."""
        name, text = field_of(pointer), text_of(value)
        if value is None:
            return "none"
        if name in ("flavor", "profile"):
            found = self._choices(name).queryset.filter(slug=text).first()
            return str(found) if found else text
        options = {key: words for key, words, *_ in OPTIONS.get(name, ())}
        return f"“{options[text].partition(':')[0]}”" if text in options else shown(value)

    def field_of(self, finding: Finding) -> str:
        """The field that shows a finding: its own, or the text box of flags; empty for the whole form."""
        return self._shown_at(finding.field)

    def _shown_at(self, field: str) -> str:
        if not field:
            return ""
        # A flag that was written into the text box is put right there, even where it has a field of its own.
        if field in self.fields and field not in self._written:
            return field
        role, _ = of_role(field)
        return f"{role}_args" if role else "args"


# What is typed into these is judged with the spec and by preflight, beside the field.
DeploymentForm.base_fields.update(engine_fields.form_fields())


def initial_of(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The form's values for a stored spec."""
    engine = spec.get("engine", {})
    args = dict(engine.get("args", {}))
    roles = spec.get("strategy") == Strategy.DISAGGREGATED
    fields = [field for field in engine_fields.FIELDS if field.flag in args and not (roles and field.apart)]
    own = {field.name: text_of(args.pop(field.flag)) for field in fields}
    return {
        "source_uri": spec.get("source", {}).get("uri", ""),
        "source_revision": spec.get("source", {}).get("revision") or "",
        "source_folder": spec.get("source", {}).get("folder") or FOLDER,
        "source_cache": spec.get("source", {}).get("cache") or "",
        "credential": spec.get("source", {}).get("credential") or "",
        "strategy": spec.get("strategy", "standard"),
        "flavor": spec.get("flavor", ""),
        "profile": engine.get("profile", ""),
        "nodes": text_of(spec.get("nodes", "")),
        "surge": text_of(spec.get("surge", 0)),
        "replicas_min": str(spec.get("replicas", {}).get("min", 1)),
        "replicas_max": str(spec.get("replicas", {}).get("max", 1)),
        "scaling_concurrency": text_of((spec.get("scaling") or {}).get("concurrency", "")),
        "scaling_percent": text_of((spec.get("scaling") or {}).get("percent", "")),
        "args": format_flags(args),
        "adapters": format_adapters(spec.get("adapters") or ()),
        **own,
        **initial_of_roles(spec),
    }


def _sets(finding: Finding) -> str:
    """All that a fix sets at once, as a button of the form sends it (“way”); empty where it sets one field."""
    if finding.value is None or not finding.also:
        return ""
    return "&".join(
        f"{field_of(pointer)}={'' if value is None else text_of(value)}"
        for pointer, value in ((finding.pointer, finding.value), *finding.also)
    )


def with_value(data: Mapping[str, Any], name: str, value: str) -> dict[str, str]:
    """The posted form with one value set, as the one-click fix does it: a field, or a line of flags.

    An empty value empties the field, or takes the line away. A flag that was written as a line is set there, also
    where it has a field.
    """
    changed = {key: str(data[key]) for key in data}
    flag, role = _flag_of(name), of_role(name)[0]
    box = f"{role}_args" if role else "args"
    written = flag in engine_fields.BY_FLAG and has_line(changed.get(box, ""), flag)
    if name in DeploymentForm.base_fields and not written:
        changed[name] = value
        keep_in_order(changed, name)
    else:
        changed[box] = with_line(changed.get(box, ""), flag, value)
    return changed


def _flag_of(field: str) -> str:
    return of_role(field)[1].replace("_", "-")


def _leave_out(data: dict[str, Any], error: FieldError) -> None:
    """Take what this error is about out of a wish, or put the usual value in its place."""
    _, _, *path = error.pointer.split("/")
    if path[:2] == ["source", "revision"]:
        data["source"]["revision"] = None
    elif path[:1] == ["strategy"]:
        data["strategy"] = "standard"
        for role in ROLES:
            data.pop(role, None)
    elif path[:1] in (["scaling"], ["surge"]):
        data.pop(path[0], None)
    elif path[:1] == ["replicas"]:
        data["replicas"] = {"min": 1, "max": 1}
    elif path[:1] == ["engine"] and len(path) == 3:
        data["engine"]["args"].pop(path[2], None)
    elif path[0] in ROLES and path[0] in data and path[1:2] == ["replicas"]:
        data[path[0]]["replicas"] = {"min": 1, "max": 1}
    elif path[0] in ROLES and path[0] in data and len(path) == 3:
        data[path[0]]["args"].pop(path[2], None)
