"""What a run reads of the hub, and whether it can be had: for `fetch` and `doctor --suite`."""

from __future__ import annotations

from dataclasses import dataclass

from peo_bench.data.fetched import Wanted, access_problem, check_digests, copy_of, dataset_wanted
from peo_bench.data.given_checkpoint import checkpoint_wanted, detect_form
from peo_bench.data.schema import DataSource
from peo_bench.errors import UsageError
from peo_bench.models.known import KNOWN, KNOWN_DATA
from peo_bench.runs.config import RunConfig
from peo_bench.scorers.settings import ScorerConfig, by_column
from peo_bench.suites.suite import PairsData, SuiteConfig, suite_task


def wanted(config: RunConfig) -> list[Wanted]:
    """Return the repositories of the hub that a run reads, checkpoints first, each once."""
    checkpoints = [config.suite.model, *(scorer.model for scorer in scorer_checkpoints(config.suite))]
    checkpoints += [*config.policies.values(), *config.experts.values()]
    found = [checkpoint_wanted(place) for place in checkpoints]
    found += map(dataset_wanted, data_sources(config.suite))
    return list(dict.fromkeys(item for item in found if item is not None))


def scorer_checkpoints(suite: SuiteConfig) -> list[ScorerConfig]:
    """Return the scorers and proxies of a suite that are checkpoints."""
    both = [*by_column(suite_task(suite).scorers).values(), *by_column(suite.proxies).values()]
    return [scorer for scorer in both if scorer.layout != "registered"]


def data_sources(suite: SuiteConfig) -> list[DataSource]:
    """Return what a suite reads pairs and prompts from."""
    task = suite_task(suite)
    pairs = suite.data.sources if isinstance(suite.data, PairsData) else ()
    prompts = (task.prompts, task.benign if suite.over_refusal_prompts else None)
    return [*pairs, *(source for source in prompts if source is not None)]


SECONDS = 10.0
"""That the hub has for an answer."""


@dataclass(frozen=True)
class Looked:
    """What was found of a repository, in a line, and what to do where it cannot be used; nothing where it can."""

    wanted: Wanted
    found: str
    fix: str = ""


def look_at(item: Wanted) -> Looked:
    """Ask the hub, or the folder of `--offline`, for a repository: access, revision, licence, form of its weights."""
    try:
        copied = copy_of(item.kind, item.id, item.revision)
        if copied is not None:
            check_digests(*copied)
            return Looked(item, f"copy of {copied[1].commit[:12]}, digests agree; {_licence(item, None)}")
        return _asked(item)
    except UsageError as problem:
        found, _, fix = str(problem).rpartition(": ")
        return Looked(item, found, fix)
    except Exception as error:  # the errors of huggingface_hub's HTTP library change with its version
        found, fix = access_problem(item.id, error)
        return Looked(item, f"{found}; {_licence(item, None)}", fix)


def _asked(item: Wanted) -> Looked:
    from huggingface_hub import HfApi

    hub = HfApi()
    hub.auth_check(item.id, repo_type=item.kind)
    if item.kind == "dataset":
        data = hub.dataset_info(item.id, revision=item.revision, timeout=SECONDS)
        return Looked(item, f"commit {str(data.sha)[:12]}; {_licence(item, data.card_data)}")
    model = hub.model_info(item.id, revision=item.revision, timeout=SECONDS)
    detect_form([file.rfilename for file in model.siblings or ()], "base", item.id)
    return Looked(item, f"commit {str(model.sha)[:12]}; {_licence(item, model.card_data)}")


def _licence(item: Wanted, card: object) -> str:
    """Return the licence that the card states, or that is known here."""
    known = (KNOWN if item.kind == "model" else KNOWN_DATA).get(item.id)
    stated = getattr(card, "license", None) or (known.licence if known else "not stated")
    return f"licence: {stated}"
