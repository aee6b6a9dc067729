"""Which models of a vLLM wheel read each prompt whole, in one step, where they give embeddings or scores.

vLLM asks for that three things: how a class pools by default, how its attention looks, and whether its configuration is
made one that looks both ways.
"""

from __future__ import annotations

import ast
from pathlib import Path

from wheel_classes import Class

# Kinds of pooling that need all tokens of a prompt at once.
AT_ONCE = frozenset({"CLS", "MEAN"})
BOTH_WAYS = "encoder_only"


def undivided(found: Class) -> bool:
    """True for a class of which vLLM cuts no prompt in parts."""
    pools = _set(found, "default_pooling_type", "seq_pooling_type", "default_seq_pooling_type")
    return pools in AT_ONCE or _set(found, "attn_type", "attn_type", "attn_type") == BOTH_WAYS


def _set(found: Class, decorator: str, argument: str, attribute: str) -> str | None:
    """What the nearest of a class and its ancestors says, by a decorator or in its body."""
    for each in found.order:
        for mark in each.node.decorator_list if each.node is not None else ():
            match mark:
                case ast.Call(func=ast.Name(id=name), args=given, keywords=keywords) if name == decorator:
                    values = [item.value for item in keywords if item.arg == argument] or given[:1]
                    return _text(values[0]) if values else None
        match each.body(attribute):
            case ast.Assign(value=value) | ast.AnnAssign(value=ast.expr() as value):
                return _text(value)
    return None


def _text(value: ast.expr) -> str | None:
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else None


def made_both_ways(path: Path) -> set[str]:
    """Architectures whose configuration vLLM changes so that every token sees all others, whatever it says."""
    changing, found = set[str](), set[str]()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef(name=name, body=body) if any(map(_changes, body)):
                changing.add(name)
            case ast.AnnAssign(target=ast.Name(id="MODELS_CONFIG_MAP"), value=ast.Dict(keys=keys, values=values)):
                pairs = zip(keys, values, strict=True)
                found = {_text(key) or "" for key, value in pairs if key and getattr(value, "id", "") in changing}
    return found


def _changes(member: ast.stmt) -> bool:
    """True for a function that always sets `is_causal` to False."""
    for statement in member.body if isinstance(member, ast.FunctionDef) else ():
        match statement:
            case ast.Assign(targets=[ast.Attribute(attr="is_causal")], value=ast.Constant(value=False)):
                return True
        if any(isinstance(each, ast.Return) for each in ast.walk(statement)):
            return False
    return False
