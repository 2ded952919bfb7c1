"""One engine for the policies of all methods: specs are data, rows of one batch may have different specs.

Rows are batched by the model that their first source needs. LoRA policies of one base share that base model (row-scaled
adapters), as long as the adapters' total rank stays within `RANK_BUDGET`; a policy with full fine-tunes needs its own
materialised model, as does one whose task vectors are merged by a rule. Further sources of a mixture join as extra
passes. The vocabularies of all sources must be equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import PolicySpec, Weights
from peo_bench.engine import likelihood
from peo_bench.engine.decode import Rows, decode
from peo_bench.engine.materialise import Models
from peo_bench.engine.noise import row_key
from peo_bench.engine.passes import Pass, common_beginning, first_of_each
from peo_bench.engine.selection import choose, distinct_drafts, selection_nats
from peo_bench.engine.short_memory import if_it_fits
from peo_bench.errors import UsageError
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.files.json_types import Json
from peo_bench.jobs.job import Handle
from peo_bench.models.rendering import answer_texts, prompt_ids
from peo_bench.process import Precision
from peo_bench.process import device as default_device

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

T = TypeVar("T")
RANK_BUDGET = 128
"""Total rank up to which adapter sets share a batch. The extra work per layer is about rank * (1/in + 1/out)."""

Bank = tuple[str, ...]
"""Adapters stacked together, by job id."""

Place = Weights | tuple[str, Bank]
"""What identifies a model: the weights it was materialised for, or a base with a bank of adapters."""


@dataclass(frozen=True)
class Request:
    """One answer wanted: `sample` numbers the answers to one prompt; noise depends on `prompt_id` and `sample`.

    `tokens`, where given, are continued as they are, in place of the rendered prompt.
    """

    spec: PolicySpec
    prompt: str
    prompt_id: str
    sample: int = 0
    tokens: tuple[int, ...] | None = None

    @property
    def drafts(self) -> tuple[Request, ...]:
        """The answers to generate for this one: itself, or one per candidate of a selection.

        Candidate j of k has the noise of sample k * `sample` + j, so all noise is independent, and the first candidate
        of sample 0 gives the very answer that its policy gives alone.
        """
        k = len(self.spec.candidates)
        drafts = (replace(self, spec=spec, sample=k * self.sample + j) for j, spec in enumerate(self.spec.candidates))
        return tuple(drafts) or (self,)


@dataclass(frozen=True)
class Answer:
    """Answer tokens (the end-of-sequence token included if produced), their text, and whether the end is missing.

    The answer of a selection knows the `candidates` that it was `chosen` from.
    """

    tokens: tuple[int, ...]
    text: str
    truncated: bool
    candidates: tuple[Answer, ...] = ()
    chosen: int = 0


def _ignore(indices: list[int], answers: list[Answer]) -> None:
    pass


class Engine:
    """Generate, and compute likelihoods, for any mixture of policies over the artefacts it is given."""

    def __init__(
        self,
        artefact: Callable[[str], Handle],
        *,
        precision: Precision = "float32",
        device: str | None = None,
        batch_size: int = 64,
        noise_seed: int = 0,
    ) -> None:
        """Find artefacts by job id with `artefact`; the default device is that of `peo_bench.jobs.workspace`.

        At most `batch_size` rows are answered at a time; half as many from the first batch on that did not fit.
        """
        self.models = Models(artefact, precision, device or default_device())
        self.precision = precision
        self.batch_size = batch_size
        self.noise_seed = noise_seed
        self._prompts: dict[tuple[str, str], list[int]] = {}
        self._compatible: set[tuple[str, str]] = set()
        self._one_vocabulary: dict[tuple[str, str], bool] = {}

    def _check_lengths(self, drafts: Sequence[Request], decoding: Decoding) -> None:
        """Raise `UsageError` for a prompt that leaves some model no room for an answer of `max_new_tokens`."""
        for draft in drafts:
            longest = min(self.models.context_length(weights.base) for _, weights in draft.spec.mix)
            room, n = longest - decoding.max_new_tokens, len(self._prompt(draft))
            if n > room:
                raise UsageError(
                    f"the prompt has {n} tokens, at most {room} fit beside an answer of {decoding.max_new_tokens} "
                    f"({draft.prompt[:40]!r}): shorten it, or the answers (the suite's decoding.max_new_tokens)"
                )

    def generate(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        on_batch: Callable[[list[int], list[Answer]], None] = _ignore,
    ) -> list[Answer]:
        """Return an answer per request, in order.

        `on_batch` is called with the answers of each finished batch and their indices among the `distinct_drafts` of
        the requests. An answer does not depend on the other requests. Raises `UsageError` for adapters and mixtures
        that cannot be run exactly, and for a prompt that leaves no room for an answer.
        """
        drafts = distinct_drafts(requests)
        self._check_lengths(drafts, decoding)
        plan = _Plan(self.models, (draft.spec for draft in drafts))
        self._check_vocabularies(draft.spec for draft in drafts)
        number = {spec: i for i, spec in enumerate(dict.fromkeys(draft.spec for draft in drafts))}
        together = self._shared(drafts) > 0
        lengths = [
            (together and number[draft.spec], len(self._prompt(draft)), draft.prompt_id, draft.sample)
            for draft in drafts
        ]
        answers: dict[Request, Answer] = {}
        batches = plan.batches(drafts, lengths, self.batch_size)
        for batch, done in self._fitting(
            batches, lambda part: self._generate([drafts[i] for i in part], plan, decoding)
        ):
            answers.update(zip((drafts[i] for i in batch), done, strict=True))
            on_batch(batch, done)
        return self.choose(requests, answers)

    def choose(
        self, requests: Sequence[Request], drafts: Mapping[Request, Answer], kept: Memo = FORGETFUL
    ) -> list[Answer]:
        """Return an answer per request from the answers to its drafts; selections load and ask their scorers.

        Batches of scores that are `kept` are not computed again.
        """
        from peo_bench.scorers.columns import score_texts, scorer_columns

        def scores(scorer: str, asked: list[Request], answers: list[Answer]) -> list[float]:
            job_id, _, column = scorer.partition("/")
            columns = scorer_columns({column: self.models.artefact(job_id)}, self.precision)
            prompts, texts = [request.prompt for request in asked], [answer.text for answer in answers]
            specs, ended = [request.spec for request in asked], [not answer.truncated for answer in answers]
            return score_texts(columns, prompts, texts, specs, kept, ended).columns[column]

        return choose(requests, drafts, scores)

    def kl(
        self,
        requests: Sequence[Request],
        answers: Sequence[Answer],
        reference: PolicySpec,
        kept: Memo = FORGETFUL,
    ) -> list[float]:
        """Return per answer sum_t KL(pi(.|y_<t) || ref(.|y_<t)) in nats at temperature 1; 0 for the reference itself.

        Averaged over answers sampled at temperature 1 this is an unbiased estimate of KL(pi || ref) per answer. NaN for
        selections, whose next-token distributions are not known: see `kl_bound`, and for policies that do not read the
        prompts as the same tokens as the reference. Batches that are `kept` are not computed again.
        """
        known = [not request.spec.candidates and self._reads_alike(request, reference) for request in requests]
        values = [0.0 if measured else math.nan for measured in known]
        todo = [i for i, r in enumerate(requests) if known[i] and r.spec != reference]
        moved, answers = [requests[i] for i in todo], [answers[i] for i in todo]
        plan = _Plan(self.models, [reference, *(request.spec for request in moved)])
        self._check_vocabularies(PolicySpec((*request.spec.mix, *reference.mix)) for request in moved)
        compute = partial(_divergences, reference)
        for i, value in self._batched(plan, moved, answers, kept, ["kl", reference.key], compute):
            values[todo[i]] = value
        return values

    def kl_bound(
        self,
        requests: Sequence[Request],
        answers: Sequence[Answer],
        reference: PolicySpec,
        kept: Memo = FORGETFUL,
    ) -> list[float]:
        """Return per answer of a selection log pi_J(y) - log ref(y) + `selection_nats`; NaN for mixtures. Nats.

        pi_J is the candidate that gave the answer. Averaged over answers sampled at temperature 1 this estimates an
        upper bound of KL(pi || ref); single values may be negative.
        """
        values = [math.nan] * len(requests)
        todo: list[int] = []
        for i, request in enumerate(requests):
            if request.spec.candidates:
                values[i] = selection_nats(request.spec)
                if request.spec.candidates[answers[i].chosen] != reference:
                    todo.append(i)
        drafts = [requests[i].drafts[answers[i].chosen] for i in todo]
        answers = [answers[i] for i in todo]
        log_pi = self.log_probs(drafts, answers, kept)
        log_ref = self.log_probs([replace(draft, spec=reference) for draft in drafts], answers, kept)
        for i, ours, theirs in zip(todo, log_pi, log_ref, strict=True):
            values[i] += float(ours.sum(dtype=np.float64) - theirs.sum(dtype=np.float64))
        return values

    def log_probs(
        self, requests: Sequence[Request], answers: Sequence[Answer], kept: Memo = FORGETFUL
    ) -> list[np.ndarray]:
        """Return per answer of a mixture its tokens' log-probabilities at temperature 1, (tokens,) float32, in nats.

        Batches that are `kept` are not computed again.
        """
        values: dict[int, np.ndarray] = {}
        plan = _Plan(self.models, (request.spec for request in requests))
        self._check_vocabularies(request.spec for request in requests)
        for i, row in self._batched(plan, requests, answers, kept, ["log-probs"], _token_log_probs):
            values[i] = np.asarray(row[: len(answers[i].tokens)], dtype=np.float32)
        return [values[i] for i in range(len(requests))]

    def continuations(
        self, requests: Sequence[Request], answers: Sequence[Answer], kept: Memo = FORGETFUL
    ) -> list[tuple[float, bool]]:
        """Return per answer its log-probability at temperature 1 in nats, and whether greedy decoding would give it.

        Batches that are `kept` are not computed again.
        """
        values: dict[int, tuple[float, bool]] = {}
        plan = _Plan(self.models, (request.spec for request in requests))
        self._check_vocabularies(request.spec for request in requests)
        for i, (value, greedy) in self._batched(plan, requests, answers, kept, ["continuations"], _continuations):
            values[i] = value, greedy
        return [values[i] for i in range(len(requests))]

    def materialised(self, weights: Weights) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Return a fresh fp32 model on the CPU with merged weights, and its tokenizer, for export."""
        return self.models.exportable(weights), self.models.tokenizer(weights.base)

    def _generate(self, requests: list[Request], plan: _Plan, decoding: Decoding) -> list[Answer]:
        base = requests[0].spec.mix[0][1].base
        tokenizer, stop = self.models.tokenizer(base), self.models.stop_ids(base)
        keys = [row_key(self.noise_seed, r.prompt_id, r.sample) for r in requests]
        pad = _pad(tokenizer, stop)

        def alone(row: int, ids: list[int]) -> torch.Tensor:
            """Return log pi (vocabulary,) of the next token, by passes that hold this row only."""
            spec = requests[row].spec
            packed = likelihood.pack([ids], [[pad]], pad, self.models.device)
            return likelihood.log_policy(_Plan(self.models, [spec]).passes([spec]), packed)[0, 0]

        prompts, exact = [self._prompt(r) for r in requests], self.precision == "float32"
        rows = Rows(prompts, keys, stop, pad, self._shared(requests), alone if exact else None)
        answers = decode(plan.passes([r.spec for r in requests]), rows, decoding)
        texts = answer_texts(tokenizer, answers, stop)
        return [
            Answer(answer, text.strip(), answer[-1] not in stop) for answer, text in zip(answers, texts, strict=True)
        ]

    def _fitting(
        self, batches: Iterable[list[int]], run: Callable[[list[int]], list[T]]
    ) -> Iterator[tuple[list[int], list[T]]]:
        """Yield every batch with what `run` gives for it, in halves from the first on that does not fit into memory."""
        for batch in batches:
            while batch:
                part = batch[: self.batch_size]
                done = if_it_fits(part, run)
                if done is None:
                    self.batch_size = len(part) // 2
                    continue
                yield part, done
                batch = batch[len(part) :]

    def _batched(
        self,
        plan: _Plan,
        requests: Sequence[Request],
        answers: Sequence[Answer],
        kept: Memo,
        name: list[Json],
        compute: Callable[[_Plan, list[PolicySpec], likelihood.Packed], list[T]],
    ) -> Iterable[tuple[int, T]]:
        """Yield every answer's index and value; a batch is kept by `name` and what tells its answers apart."""

        def run(batch: list[int]) -> list[T]:
            specs = [requests[i].spec for i in batch]
            keys = {spec: spec.key for spec in set(specs)}
            told: list[Json] = [
                [keys[requests[i].spec], requests[i].prompt_id, requests[i].sample, list(answers[i].tokens)]
                for i in batch
            ]
            packed = self._packed([requests[i] for i in batch], [answers[i] for i in batch])
            return kept.value([*name, *told], partial(compute, plan, specs, packed))

        for batch, found in self._fitting(self._alike(plan, requests, answers), run):
            yield from zip(batch, found, strict=True)

    def _alike(self, plan: _Plan, requests: Sequence[Request], answers: Sequence[Answer]) -> Iterable[list[int]]:
        """Yield batches of indices, answers of similar lengths together, of as many rows as are likely to fit."""
        lengths = [(len(a.tokens), len(self._prompt(r))) for r, a in zip(requests, answers, strict=True)]
        for batch in plan.batches(requests, lengths, self.batch_size):
            vocabulary = len(self.models.tokenizer(requests[batch[0]].spec.mix[0][1].base))
            answer, prompt = (max(lengths[i][side] for i in batch) for side in (0, 1))
            size = likelihood.rows_that_fit(prompt, answer, vocabulary, self.models.device)
            yield from (batch[start : start + size] for start in range(0, len(batch), size))

    def _packed(self, requests: Sequence[Request], answers: Sequence[Answer]) -> likelihood.Packed:
        """Return the laid-out tokens of one batch."""
        base = requests[0].spec.mix[0][1].base
        pad = _pad(self.models.tokenizer(base), self.models.stop_ids(base))
        prompts, tokens = [self._prompt(request) for request in requests], [answer.tokens for answer in answers]
        return likelihood.pack(prompts, tokens, pad, self.models.device, self._shared(requests))

    def _shared(self, requests: Sequence[Request]) -> int:
        """Return how many first tokens of all prompts are read once per policy: see `engine.passes`."""
        bases = {weights.base for request in requests for _, weights in request.spec.mix}
        if len(requests) <= 1 or not all(map(self.models.allows_gaps, bases)):
            return 0
        return common_beginning([self._prompt(request) for request in requests])

    def _prompt(self, request: Request) -> list[int]:
        if request.tokens is not None:
            return list(request.tokens)
        base = request.spec.mix[0][1].base
        key = (base, request.prompt)
        if key not in self._prompts:
            self._prompts[key] = prompt_ids(self.models.tokenizer(base), request.prompt)
        return self._prompts[key]

    def _reads_alike(self, request: Request, reference: PolicySpec) -> bool:
        """Say whether both policies have the same vocabulary and read the prompt as the same tokens."""
        own, other = request.spec.mix[0][1].base, reference.mix[0][1].base
        if own == other:
            return True
        if (own, other) not in self._one_vocabulary:
            self._one_vocabulary[own, other] = self.models.vocabulary(own) == self.models.vocabulary(other)
        prompts = self._prompt(request), self._prompt(replace(request, spec=reference))
        return self._one_vocabulary[own, other] and prompts[0] == prompts[1]

    def _check_vocabularies(self, specs: Iterable[PolicySpec]) -> None:
        pairs = {(spec.mix[0][1].base, weights.base) for spec in set(specs) for _, weights in spec.mix}
        for first, other in sorted(pairs - self._compatible):
            if first != other and self.models.tokenizer(first).get_vocab() != self.models.tokenizer(other).get_vocab():
                raise UsageError(f"policies on {first} and {other} have different vocabularies and cannot be combined")
            self._compatible.add((first, other))


def _divergences(
    reference: PolicySpec, plan: _Plan, specs: Sequence[PolicySpec], packed: likelihood.Packed
) -> list[float]:
    ours, theirs = plan.passes(specs), plan.passes([reference] * len(specs))
    found: list[float] = likelihood.answer_kl(ours, theirs, packed).tolist()
    return found


def _token_log_probs(plan: _Plan, specs: Sequence[PolicySpec], packed: likelihood.Packed) -> list[list[float]]:
    log_pi = likelihood.log_policy(plan.passes(specs), packed)
    found: list[list[float]] = likelihood.token_log_probs(log_pi, packed).tolist()
    return found


def _continuations(plan: _Plan, specs: Sequence[PolicySpec], packed: likelihood.Packed) -> list[tuple[float, bool]]:
    log_pi = likelihood.log_policy(plan.passes(specs), packed)
    found = likelihood.token_log_probs(log_pi, packed).masked_fill(~packed.real, 0.0).sum(dim=1).tolist()
    greedy = ((log_pi.argmax(dim=-1) == packed.answers) | ~packed.real).all(dim=1).tolist()
    return list(zip(found, greedy, strict=True))


def _pad(tokenizer: PreTrainedTokenizerBase, stop: Sequence[int]) -> int:
    """Return the id put into padding; attention masks hide it, so any will do."""
    return stop[0] if tokenizer.pad_token_id is None else int(tokenizer.pad_token_id)


class _Plan:
    """Which model each source of some specs runs on, and the batches that follow from it."""

    def __init__(self, models: Models, specs: Iterable[PolicySpec]) -> None:
        """Unite the adapter sets of all specs within the rank budget."""
        self.models = models
        sources = dict.fromkeys(weights for spec in dict.fromkeys(specs) for _, weights in spec.mix)
        self._full = {weights for weights in sources if self._has_full(weights)}
        self._banks: dict[str, list[Bank]] = {}
        for weights in sorted(sources.keys() - self._full, key=lambda w: (-len(w.terms), w.terms)):
            self._admit(weights)
        self._places = {weights: self._locate(weights) for weights in sources}

    def _has_full(self, weights: Weights) -> bool:
        return weights.merge is not None or any(self.models.form(job) != "lora" for job, _ in weights.terms)

    def _admit(self, weights: Weights) -> None:
        """Put the policy's adapters into the first bank with room for them."""
        needed = {job for job, _ in weights.terms}
        banks = self._banks.setdefault(weights.base, [])
        for i, bank in enumerate(banks):
            united = tuple(sorted(needed.union(bank)))
            if united == bank or self._rank(weights.base, united) <= RANK_BUDGET:
                banks[i] = united
                return
        banks.append(tuple(sorted(needed)))

    def _rank(self, base: str, bank: Bank) -> int:
        return sum(self.models.adapter(base, job).rank for job in bank)

    def _locate(self, weights: Weights) -> Place:
        if weights in self._full:
            return weights
        needed = {job for job, _ in weights.terms}
        return weights.base, next(bank for bank in self._banks[weights.base] if needed <= set(bank))

    def batches(self, requests: Sequence[Request], order: Sequence[tuple[object, ...]], size: int) -> list[list[int]]:
        """Return lists of at most `size` indices that share the first source's model, sorted by `order`."""
        groups: dict[Place, list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault(self._places[request.spec.mix[0][1]], []).append(i)
        parts = (sorted(group, key=lambda i: order[i]) for group in groups.values())
        return [part[start : start + size] for part in parts for start in range(0, len(part), size)]

    def passes(self, specs: Sequence[PolicySpec]) -> list[Pass]:
        """Return the forwards that a batch needs; the first one holds every row's first source, in order.

        (Given that the batch comes from `batches`; otherwise the first sources are spread over several passes.)
        """
        groups: dict[tuple[bool, Place], list[tuple[int, float, Weights]]] = {}
        for first in (True, False):
            for row, spec in enumerate(specs):
                for a, weights in spec.mix[:1] if first else spec.mix[1:]:
                    groups.setdefault((first, self._places[weights]), []).append((row, a, weights))
        return [self._pass(place, members) for (_, place), members in groups.items()]

    def _pass(self, place: Place, members: list[tuple[int, float, Weights]]) -> Pass:
        rows = torch.tensor([row for row, _, _ in members], device=self.models.device)
        coefficients = torch.tensor([a for _, a, _ in members], dtype=torch.float32, device=self.models.device)
        _, numbers = first_of_each([weights for _, _, weights in members], self.models.device)
        if isinstance(place, Weights):
            return Pass(self.models.runnable(place), rows, coefficients, numbers)
        base, bank = place
        module = self.models.row_lora(base)
        adapters = [self.models.adapter(base, job) for job in bank]
        state = module.state([weights for _, _, weights in members], adapters)
        return Pass(module.model, rows, coefficients, numbers, module, state)
