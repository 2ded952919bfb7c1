"""What is needed to judge a run's numbers or to produce them again, as texts."""

from __future__ import annotations

from peo_bench.report.wording import fact
from peo_bench.results.folder import Json, RunFolder


def provenance(folder: RunFolder) -> Json:
    """Prepare the run's circumstances as texts: groups of facts that are present, command and dates."""
    run = folder.run
    groups = {
        "Packages": "packages",
        "Hardware": "hardware",
        "Seconds per stage": "stages",
        "Seconds of work": "job_seconds",
    }
    when = [f"{key} {run[key]}" for key in ("started", "finished") if run.get(key)]
    seeds = ", ".join(str(seed) for seed in run.get("seeds", []))
    return {
        "command": str(run.get("command", "")),
        "facts": {
            title: [(name, fact(value)) for name, value in run[key].items()]
            for title, key in groups.items()
            if run.get(key)
        }
        | {"How it was measured": _measured(folder)},
        "when": "; ".join([*when, f"seeds {seeds}", *(f"{k} {run[k]}" for k in ("licence",) if run.get(k))]),
        "job_ids": folder.job_ids,
    }


def _measured(folder: RunFolder) -> list[tuple[str, str]]:
    """Return task version, scorers, judges, decoding and prompts as texts."""
    measure = folder.run.get("measure") or {}
    facts = [("task", f"{measure['task']} v{measure['version']}")] if {"task", "version"} <= set(measure) else []
    facts += [(f"scorer of {column}", fact(by)) for column, by in (measure.get("scorers") or {}).items()]
    judges = [judge for task in folder.metrics.get("tasks", {}).values() for judge in task.get("judges") or {}]
    facts += [("judge (model, prompt hash)", judge) for judge in dict.fromkeys(judges)]
    facts += [(f"decoding: {name}", fact(value)) for name, value in (measure.get("decoding") or {}).items()]
    prompts = measure.get("prompts") or {}
    return facts + [(f"test prompts: {name}", fact(value)) for name, value in prompts.items()]
