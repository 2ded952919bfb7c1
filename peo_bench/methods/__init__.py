"""One method, one file; `make_method` makes them by name. Wrappers are written `wrapper.method`."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import ValidationError

from peo_bench.core.method import Method
from peo_bench.errors import UsageError, unknown
from peo_bench.registry import Registry
from peo_bench.training.learners import BUILTIN


def _is_method(thing: object) -> bool:
    return isinstance(thing, type) and issubclass(thing, Method)


METHODS: Registry[type[Method]] = Registry(
    "method",
    "peo_bench.methods",
    {
        "amopo": "peo_bench.methods.amopo:AMoPO",
        "best-of-n": "peo_bench.methods.best_of_n:BestOfN",
        "cagrad": "peo_bench.methods.cagrad:CAGrad",
        "dare": "peo_bench.methods.dare:DARE",
        "data-mix": "peo_bench.methods.data_mix:DataMix",
        "della": "peo_bench.methods.della:DELLA",
        "dpo-lw": "peo_bench.methods.dpo_lw:DPOLW",
        "expo": "peo_bench.methods.expo:ExPO",
        "fw-merge": "peo_bench.methods.fw_merge:FWMerge",
        "gdpo": "peo_bench.methods.gdpo:GDPO",
        "lagrangian": "peo_bench.methods.lagrangian:Lagrangian",
        "liti": "peo_bench.methods.liti:LITI",
        "map": "peo_bench.methods.map:MAP",
        "maxmin": "peo_bench.methods.maxmin:MaxMin",
        "mgda": "peo_bench.methods.mgda:MGDA",
        "mo-grpo": "peo_bench.methods.mo_grpo:MOGRPO",
        "mod": "peo_bench.methods.mod:MOD",
        "model-stock": "peo_bench.methods.model_stock:ModelStock",
        "modpo": "peo_bench.methods.modpo:MODPO",
        "morlhf": "peo_bench.methods.morlhf:MORLHF",
        "peo": "peo_bench.methods.peo:PEO",
        "peo-bonesoup": "peo_bench.methods.peo_bonesoup:PEOBonesoup",
        "peo-expo": "peo_bench.methods.peo:PEOExPO",
        "peo-generalist": "peo_bench.methods.peo:PEOGeneralist",
        "peo-past-expert": "peo_bench.methods.peo_past_expert:PEOPastExpert",
        "preference-vector": "peo_bench.methods.preference_vector:PreferenceVector",
        "raco": "peo_bench.methods.raco:RACO",
        "rps": "peo_bench.methods.rps:RPS",
        "sacpo": "peo_bench.methods.sacpo:SACPO",
        "slerp": "peo_bench.methods.slerp:Slerp",
        "soup": "peo_bench.methods.soup:Soup",
        "tchebycheff": "peo_bench.methods.tchebycheff:Tchebycheff",
        "ties": "peo_bench.methods.ties:TIES",
        "transform-combine": "peo_bench.methods.transform_combine:TransformCombine",
    },
    expected="a subclass of peo_bench.core.method.Method",
    valid=_is_method,
    reserved=("all", "none", "oracle", "reference"),
)


def make_method(name: str, settings: Mapping[str, Mapping[str, object]] | None = None) -> Method:
    """Return the method called `name` ("peo", or "expo.modpo" for a wrapper around another method).

    `settings` are those of all methods by name: what a wrapper wraps keeps its own. Raise `UsageError` for unknown
    names and settings.
    """
    outer, _, inner = name.partition(".")
    cls = METHODS.get(outer)
    if cls.wraps and not (inner or cls.wraps_reference):
        raise UsageError(f"{outer!r} wraps another method: type for instance {outer}.modpo")
    if inner and not cls.wraps:
        raise UsageError(f"{outer!r} wraps no other method: type {outer}")
    try:
        checked = cls.Settings.model_validate(dict((settings or {}).get(name, {})))
    except ValidationError as error:
        raise _setting_error(name, cls, error) from None
    if not inner:
        return cls(checked)
    wrapped = make_method(inner, settings)
    if wrapped.candidates > 1:
        raise UsageError(f"{name}: {inner} chooses among finished answers; nothing can be wrapped around that")
    return cls(checked, wrapped)


def methods_table() -> str:
    """Return the table of docs/methods.md: every registered method, from what its class says."""
    lines = ["| method | reference | what is trained | cost | exact | ours |", "|---|---|---|---|---|---|"]
    for key in METHODS.names():
        method = METHODS.get(key)
        name = f"`{key}.METHOD`" if method.wraps else f"`{key}`"
        name += f", `{key}`" if method.wraps_reference else ""
        alone = not (method.needs_pairs or method.wraps)
        trains = method.trains + (" (needs both labels on every pair)" if method.needs_labels_on_both else "")
        trains += " (prompts will do, without pairs)" if alone else ""
        cells = [name, method.reference, trains, method.costs, method.exact, method.ours]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def learners_table() -> str:
    """Return the table of aspect learners of docs/methods.md."""
    lines = ["| learner | source | what it is | where |", "|---|---|---|---|"]
    for name, learner in BUILTIN.items():
        where = "ours" if learner.loss else "TRL"
        lines.append(f"| `{name}` | {learner.reference} | {learner.note} | {where} |")
    return "\n".join(lines)


def _setting_error(name: str, cls: type[Method], error: ValidationError) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown(f"setting of {name}", key, cls.Settings.model_fields)
    return UsageError(f"setting {name}.{key}={first['input']!r}: {first['msg'].lower()}")
