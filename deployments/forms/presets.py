"""Settings with which a model is known to fit, as what the form's fields are to be set to."""

from __future__ import annotations

from collections.abc import Mapping

from deployments.engine.proposals import SPLIT, Preset
from deployments.forms.engine_fields import BY_FLAG, FIELDS
from deployments.forms.flags import parse_flags
from deployments.forms.roles import BATCH, ROLES
from deployments.forms.values import text_of
from deployments.spec import ArgValue, Strategy


def beside(strategy: str) -> Mapping[str, ArgValue]:
    """Flags that the form gives an engine anyway: those of both roles, where there are roles."""
    return parse_flags(BATCH) if strategy == Strategy.DISAGGREGATED else {}


def sets_of(preset: Preset, strategy: str) -> dict[str, str]:
    """Every field on which it depends whether the model fits: as the preset has it, else empty."""
    roles = strategy == Strategy.DISAGGREGATED
    sets = {"flavor": preset.flavor}
    sets |= {field.name: "" for field in FIELDS if field.fits and not (roles and field.apart)}
    if not roles:
        sets["nodes"] = ""
    for flag, value in preset.args.items():
        if roles and flag == SPLIT:
            sets |= {f"{role}_{BY_FLAG[SPLIT].name}": text_of(value) for role in ROLES}
        else:
            sets[BY_FLAG[flag].name] = text_of(value)
    return sets
