"""Load language models and tokenizers from local folders; a checkpoint that is not whole is refused, tensor by tensor.

transformers draws tensors that a file lacks at random and ignores those it does not know, with a log line at most. Here
both are errors, in every role: the numbers of a model that is not the one in the folder mean nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from peo_bench.errors import UsageError
from peo_bench.jobs.job import Handle
from peo_bench.models.convert import refuse_pickle
from peo_bench.models.files import (
    MODEL_INDEX,
    MODEL_WEIGHTS,
    adapter_file,
    headers_in,
    read_object,
    reason,
    stored_tensors,
    tensor_shapes,
    weight_files,
)

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
    from transformers.models.auto.auto_factory import _BaseAutoModelClass

ModelClass: TypeAlias = "type[PreTrainedModel] | type[_BaseAutoModelClass]"
"""What reads a checkpoint: a model, or an Auto class that chooses one by the configuration."""

SAFE = {"local_files_only": True, "trust_remote_code": False}
"""Nothing is fetched, and no code of a checkpoint is run."""

COMPUTED = re.compile(r"(rotary_emb\.inv_freq|position_ids|attn\.(masked_)?bias)$")
"""Buffers that older versions saved and models now compute."""

FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Number formats of safetensors in which weights are the numbers that they are, without scales, as torch calls them."""

KERNELS = re.compile(r"(attn|attention|experts)_implementation")
"""Keys of configurations that can name code to be fetched."""

HEADS = {"new": ("score.weight",), "unused": ("lm_head.weight",)}
"""The head that a reward model gets, and the one that it leaves of its language model."""

LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
"""What configurations call the number of layers."""

WRAPPERS = ("module.", "_orig_mod.", "_fsdp_wrapped_module.", "_forward_module.", "base_model.model.")
"""Prefixes of tensor names that wrappers (data parallelism, torch.compile, FSDP, DeepSpeed, PEFT) leave behind."""

TOKENIZERS = re.compile(
    r"tokenizer\..*|tokenizer_config\.json|vocab\.(json|txt)|merges\.txt|tekken\.json|\w+(\.bpe)?\.model"
)
"""Files of which transformers makes a tokenizer."""

VOCABULARIES = re.compile(r"tokenizer\..*|tekken\.json|tiktoken\.model")
"""Files that tokenizers of any class read their vocabulary from."""

TEMPLATE = "chat_template.jinja"
"""File in which transformers keeps the chat template."""

TEMPLATES = "additional_chat_templates"
"""Folder in which transformers keeps named chat templates."""

SHOWN = 3


@dataclass(frozen=True)
class Fit:
    """How the tensors of a file fit a model: those the model lacks, those in another shape, those it has no place for.

    `alien` leaves out buffers that models compute themselves.
    """

    missing: tuple[str, ...]
    alien: tuple[str, ...]

    @staticmethod
    def of(report: Mapping[str, Collection[str]]) -> Fit:
        """Read what transformers reports of a loading."""
        reshaped = {key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]}
        alien = {name for name in report["unexpected_keys"] if not COMPUTED.search(name)}
        return Fit(tuple(sorted({*report["missing_keys"], *reshaped})), tuple(sorted(alien)))


def read_model(
    kind: ModelClass, folder: Path, precision: str = "float32", **settings: object
) -> tuple[PreTrainedModel, Fit]:
    """Load a model of the transformers class `kind`, and return how the file's tensors fit it; values are checked.

    Raises `UsageError` where two sets of weights lie in the folder, they are quantised, one is not finite, or tied ones
    differ.
    """
    import torch

    _check_files(folder)
    model, report = kind.from_pretrained(
        folder,
        dtype=getattr(torch, precision),
        use_safetensors=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **SAFE,
        **settings,
    )
    _check_names(model, folder)
    _check_values(model, folder)
    return model, Fit.of(report)


def read_outline(kind: ModelClass, folder: Path, config: PretrainedConfig | None = None) -> tuple[PreTrainedModel, Fit]:
    """Return what `read_model` does without reading weights: a model on the meta device, and how the files fit it.

    Of the tensors only names, formats and shapes are read. Raises `UsageError` as `read_model` does, but for values.
    """
    import torch

    _check_files(folder)
    config = config or load_config(folder)
    with torch.device("meta"):
        own = kind if hasattr(kind, "base_model_prefix") else type(kind.from_config(config, trust_remote_code=False))
        tensors = {
            name: torch.empty(shape, dtype=getattr(torch, FLOATS.get(dtype, "float32")))
            for path in weight_files(folder)
            for name, (dtype, shape) in headers_in(path).items()
        }
    model, report = own.from_pretrained(
        None,
        config=config,
        state_dict=tensors,
        device_map={"": "meta"},
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        **SAFE,
    )
    _check_names(model, folder)
    return model, Fit.of(report)


def _check_names(model: PreTrainedModel, folder: Path) -> None:
    """Raise `UsageError` for a parameter that the files hold under two names, of which transformers reads one.

    Also for a configuration that takes the weights from a file of another name.
    """
    elsewhere = getattr(model.config, "transformers_weights", None)
    if elsewhere is not None:
        raise UsageError(
            f"{folder}: its config.json takes the weights from {elsewhere} (transformers_weights): save the model "
            "again with save_pretrained()"
        )
    names, own = set(tensor_shapes(folder)), model.state_dict().keys()
    prefix = f"{model.base_model_prefix}."
    twice = sorted(name for name in names if name not in own and prefix + name in names & own)
    if twice:
        raise UsageError(
            f"{folder}: the weights hold both {prefix}{twice[0]} and {twice[0]}, which are one parameter: save the "
            "whole model again with save_pretrained()"
        )


def _check_files(folder: Path) -> None:
    """Raise `UsageError` where it is open which file's tensors are the model's, and for quantised weights.

    Also for a file that is damaged, and for more layers than there are tensors.
    """
    _refuse_foreign_kernels(folder)
    single = folder / MODEL_WEIGHTS
    parts = sorted(folder.glob("model-*-of-*.safetensors"))
    other = next((path for path in (folder / MODEL_INDEX, *parts) if path.is_file()), None)
    if single.is_file() and other is not None:
        raise UsageError(
            f"{folder}: holds both {single.name} and {other.name}, which may be different models: delete one of them"
        )
    owners: dict[str, str] = {}
    files = weight_files(folder)
    if not files:
        refuse_pickle((path.name for path in folder.glob("*")), folder)
    for path in files:
        for name, (dtype, _) in headers_in(path).items():
            if name in owners:
                raise UsageError(
                    f"{folder}: both {owners[name]} and {path.name} hold {name}: copy the whole checkpoint anew"
                )
            owners[name] = path.name
            if name.endswith((".weight", ".bias")) and dtype not in FLOATS and not COMPUTED.search(name):
                raise _quantised(folder, f"{name} is {dtype}")
    config = folder / "config.json"
    keys = read_object(config) if config.is_file() else {}
    declared = next((key for key in ("quantization_config", "compression_config") if keys.get(key) is not None), None)
    if declared:
        raise _quantised(folder, f"{declared} in config.json")
    layers = max((number for part in (keys, *keys.values()) for number in _layers(part)), default=0)
    if owners and layers > len(owners):  # making them all before that shows would take for ever
        raise UsageError(
            f"{config}: says {layers} layers, and the files hold {len(owners)} tensors: copy the whole checkpoint again"
        )


def _layers(part: object) -> list[int]:
    """Return what a part of a configuration says of the number of layers."""
    known = [part.get(name) for name in LAYERS] if isinstance(part, dict) else []
    return [number for number in known if type(number) is int]


def _quantised(folder: Path, sign: str) -> UsageError:
    return UsageError(
        f"{folder}: its weights are quantised ({sign}), of which no differences are taken: give the model that was "
        "quantised, or save it dequantised"
    )


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, folder: Path) -> None:
    """Raise `UsageError` for a tokenizer with tokens that the model has no embedding for."""
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    size = len(model.get_input_embeddings().weight)
    if last >= size:
        raise UsageError(
            f"{folder}: its tokenizer's {token!r} is token {last}, and the model has embeddings for {size} tokens: "
            "call model.resize_token_embeddings(len(tokenizer)) before training and save both again"
        )


def unreadable() -> tuple[type[Exception], ...]:
    """Return the errors that transformers and torch raise for a folder whose model they cannot make or run."""
    from huggingface_hub.errors import StrictDataclassError

    config = ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError, AssertionError
    return OSError, ImportError, StrictDataclassError, *config


def load_model(
    kind: ModelClass,
    folder: Path,
    precision: str = "float32",
    *,
    new: Collection[str] = (),
    unused: Collection[str] = (),
    **settings: object,
) -> PreTrainedModel:
    """Load a model that is all in its file, but for tensors named in `new`, and whose file holds no more than `unused`.

    Raises `UsageError` naming the tensors that are missing, misshapen or have no place in the model.
    """
    with _readable(folder):
        model, fit = read_model(kind, folder, precision, **settings)
    _refuse_misfit(fit, folder, new, unused)
    return model


def outline_causal(folder: Path) -> PreTrainedModel:
    """Return the causal language model of a folder without its weights; `UsageError` unless their names fit it."""
    from transformers import AutoModelForCausalLM

    with _readable(folder):
        model, fit = read_outline(AutoModelForCausalLM, folder)
    _refuse_misfit(fit, folder)
    return model


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    """Say in one line that a folder holds no model."""
    try:
        yield
    except unreadable() as error:
        raise UsageError(
            f"{folder}: cannot be loaded as a model ({reason(error)}): save it with save_pretrained()"
        ) from None


def _refuse_misfit(fit: Fit, folder: Path, new: Collection[str] = (), unused: Collection[str] = ()) -> None:
    """Raise `UsageError` naming tensors that are missing, but for those `new`, and that are alien, but for `unused`."""
    missing = [name for name in fit.missing if name not in new]
    alien = [name for name in fit.alien if name not in unused]
    if missing or alien:
        raise UsageError(f"{folder}: {_misfit(missing, alien)}")


def _misfit(missing: list[str], alien: list[str]) -> str:
    """Say which tensors are wrong, and the likely reason."""
    parts = []
    if missing:
        parts.append(f"the weights lack {_names(missing)} (or in the right shape), which would be drawn at random")
    if alien:
        parts.append(f"the weights hold {_names(alien)}, for which the model of config.json has no place")
    return "; ".join([*parts, left_by_wrapper(alien) or "save the whole model again with save_pretrained()"])


def left_by_wrapper(alien: Sequence[str]) -> str | None:
    """Say that the names of tensors without a place begin as a wrapper names them, if they do."""
    prefix = next((prefix for prefix in WRAPPERS if alien and alien[0].startswith(prefix)), None)
    return prefix and f"the names begin with {prefix!r}, which a wrapper left there: save the model inside it"


def _names(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _check_values(model: PreTrainedModel, folder: Path) -> None:
    """Raise `UsageError` for weights that are not finite, and for an output layer that is tied in name only."""
    import torch

    held = [*model.named_parameters(), *stored_buffers(model).items()]
    bad = [name for name, tensor in held if not torch.isfinite(tensor).all()]
    if bad:
        raise UsageError(f"{folder}: {_names(bad)} not finite (nan or inf): copy the weights or save them again")
    inner, outer = model.get_input_embeddings(), model.get_output_embeddings()
    tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False) and outer is not None
    if tied and not torch.equal(inner.weight, outer.weight):
        raise UsageError(
            f"{folder}: config.json ties the output layer to the embeddings, but the weights of the two differ: "
            "set tie_word_embeddings to false, or leave the output layer out"
        )


def stored_buffers(model: PreTrainedModel) -> dict[str, Tensor]:
    """Return by name what checkpoints of a model hold beside parameters, such as biases by which routers choose."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: tensor for name, tensor in model.state_dict().items() if name not in parameters}


def fill(model: PreTrainedModel, folder: Path, names: Collection[str]) -> None:
    """Give a model on the meta device the values of the tensors `names`, as far as a folder's files call them so."""
    own = model.state_dict(keep_vars=True)
    wanted = {id(own[name]) for name in names if name in own}
    values = stored_tensors(folder, [name for name, tensor in own.items() if id(tensor) in wanted])
    model.load_state_dict(values, strict=False, assign=True)
    model.tie_weights()


def load_config(folder: Path) -> PretrainedConfig:
    """Return the configuration of the model in a folder, defaults filled in."""
    from transformers import AutoConfig

    _refuse_foreign_kernels(folder)
    try:
        return AutoConfig.from_pretrained(folder, **SAFE)
    except unreadable() as error:
        raise UsageError(f"{folder}: its config.json cannot be used ({reason(error)})") from None


def _refuse_foreign_kernels(folder: Path) -> None:
    """Raise `UsageError` for a configuration whose attention would be fetched from the hub: that is code of others."""
    config = folder / "config.json"
    waiting: list[object] = [read_object(config)] if config.is_file() else []
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            for key, value in part.items():
                named = [str(name) for name in (value.values() if isinstance(value, dict) else [value])]
                if KERNELS.search(key) and any("/" in name for name in named):
                    raise UsageError(f"{config}: {key} names code on the hub: take the key out to use the model's own")
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part


def context_length(config: PretrainedConfig) -> int | None:
    """Return how many tokens a model can read; None where its configuration does not say (ALiBi's need not)."""
    found = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(found) if isinstance(found, int) and found > 0 else None


def skeleton(folder: Path) -> PreTrainedModel:
    """Return the causal language model that a folder's configuration describes, without its weights."""
    _check_files(folder)
    try:
        return unfilled(load_config(folder))
    except unreadable() as error:
        raise UsageError(f"{folder}: its config.json describes no language model ({reason(error)})") from None


def unfilled(config: PretrainedConfig) -> PreTrainedModel:
    """Return the causal language model of a configuration on the meta device, where weights have shapes alone."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def load_causal(path: Path, precision: str = "float32", **options: Any) -> PreTrainedModel:
    """Load a causal language model from a local folder; `UsageError` unless it is whole. `options`: transformers'."""
    from transformers import AutoModelForCausalLM

    return load_model(AutoModelForCausalLM, path, precision, **options)


def new_classifier(reference: Path, precision: str, **options: Any) -> PreTrainedModel:
    """Return the trunk of a causal language model with a new scalar head (drawn from the global seed)."""
    return load_model(_classifier(reference), reference, precision, **HEADS, num_labels=1, **options)


def foresee_classifier(reference: Path) -> None:
    """Raise `UsageError` where `new_classifier` would, but for what values show; no weights are read."""
    kind = _classifier(reference)
    with _readable(reference):
        _, fit = read_outline(kind, reference)
    _refuse_misfit(fit, reference, **HEADS)


def _classifier(reference: Path) -> ModelClass:
    """Return what makes a classifier of a language model; `UsageError` for an architecture that has none."""
    from transformers import AutoModelForSequenceClassification

    kind: ModelClass = AutoModelForSequenceClassification
    config = load_config(reference)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise UsageError(
            f"{reference}: no reward model can be trained from it (transformers has no sequence classification for "
            f"{config.model_type}): give the suite `proxies` for every column"
        )
    return kind


def has_tokenizer(names: Iterable[str]) -> bool:
    """Tell whether a folder with these files holds a tokenizer; a chat template alone is none."""
    return any(TOKENIZERS.fullmatch(name) for name in names)


def read_tokenizer(path: Path, chat_template: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder, with at most one chat template: the given one, by default its own.

    Raises `UsageError` for several named chat templates of which none is the default, for one that would read its
    template's control tokens as text, and for one whose vocabulary is not there, which transformers makes of nothing.
    """
    from transformers import AutoTokenizer

    from peo_bench.models.rendering import try_template

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **SAFE)
    except Exception as error:  # the tokenizers library raises bare exceptions for a damaged file
        raise UsageError(f"{path}: its tokenizer cannot be loaded ({reason(error)}): save it again") from None
    _refuse_without_vocabulary(tokenizer, path)
    length = tokenizer.model_max_length
    if not isinstance(length, int | float) or not length >= 1:
        raise UsageError(
            f"{path}: model_max_length is {length!r} in its tokenizer_config.json: give a number of tokens"
        )
    if tokenizer.split_special_tokens:
        raise UsageError(
            f"{path}: split_special_tokens is true in its tokenizer_config.json, so that the chat template's tokens "
            "would be read as text: take it out, what people wrote is always read so here"
        )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    if isinstance(tokenizer.chat_template, dict):
        tokenizer.chat_template = _default_template(tokenizer.chat_template, path)
    if tokenizer.chat_template is not None:
        try_template(tokenizer)
    return tokenizer


def _refuse_without_vocabulary(tokenizer: PreTrainedTokenizerBase, path: Path) -> None:
    """Raise `UsageError` where none of the files that a tokenizer's class reads a vocabulary from is there.

    transformers makes one that knows the special tokens of the class alone. Tokenizers of bytes have no such files.
    """
    read = {*tokenizer.vocab_files_names.values()} - {"tokenizer_config.json"}
    found = [file.name for file in path.iterdir() if file.name in read or VOCABULARIES.fullmatch(file.name)]
    if (read and not found) or not tokenizer.get_vocab().keys() - tokenizer.added_tokens_encoder.keys():
        files = ", ".join(sorted({*read, "tokenizer.json"}))
        raise UsageError(
            f"{path}: its tokenizer has no vocabulary (a {type(tokenizer).__name__} reads it from {files}): "
            "copy all files of the tokenizer, or save it again"
        )


def load_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer, with a padding token if it has none."""
    tokenizer = read_tokenizer(path)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _default_template(templates: Mapping[str, str], path: Path) -> str:
    if "default" not in templates:
        raise UsageError(
            f"{path}: the tokenizer has chat templates named {', '.join(sorted(templates))} and no default: "
            "set tokenizer.chat_template to the one to use and save the tokenizer again"
        )
    return templates["default"]


def load_policy(reference: Path, artefact: Handle, precision: str = "float32", **options: Any) -> PreTrainedModel:
    """Load the policy of a DPO artefact: the reference with its adapter, or the full model; `options` as above."""
    if artefact.result["form"] == "full":
        return load_causal(artefact.path / "model", precision, **options)
    return with_adapter(load_causal(reference, precision, **options), artefact.path / "adapter")


def with_adapter(model: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """Return `model` under the PEFT adapter in `folder`; `UsageError` unless its tensors are exactly those expected."""
    from peft import PeftModel

    from peo_bench.models.adapters import lora_config

    adapter_file(folder)
    config = lora_config(folder)
    config.inference_mode = True
    adapted = PeftModel(model, config)
    found = adapted.load_adapter(str(folder), "default", local_files_only=True, use_safetensors=True)
    missing, alien = sorted(found.missing_keys), sorted(found.unexpected_keys)
    if missing or alien:
        raise UsageError(f"{folder}: {_misfit(missing, alien)}")
    adapted.eval()
    return adapted
