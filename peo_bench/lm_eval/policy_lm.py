"""A policy as lm-eval's `LM`: log-likelihoods and answers come from the engine. Imports lm-eval, so import it late."""

from __future__ import annotations

from collections.abc import Mapping

from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import normalize_gen_kwargs
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from peo_bench.core.decoding import Decoding
from peo_bench.core.spec import PolicySpec
from peo_bench.engine.engine import Answer, Engine, Request
from peo_bench.files.journal import FORGETFUL, Memo
from peo_bench.files.json_types import Json
from peo_bench.models.rendering import answer_texts

Encoded = tuple[tuple[str, str], list[int], list[int]]
"""Texts and tokens of a context and its continuation, lm-eval's form."""


class PolicyLM(TemplateLM):  # type: ignore[misc]
    """One policy, tokenised as lm-eval's HFLM does it; contexts too long for the model lose their beginning."""

    def __init__(self, engine: Engine, spec: PolicySpec, kept: Memo = FORGETFUL) -> None:
        """Measure `spec` with `engine`; log-likelihoods that are `kept` are not computed again."""
        super().__init__()
        self.engine, self.spec, self.kept = engine, spec, kept
        base = spec.mix[0][1].base
        self.tokenizer = engine.models.tokenizer(base)
        self.longest = engine.models.context_length(base)
        self._stop = engine.models.stop_ids(base)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self._stop[0]

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without a context."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else int(bos)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: object) -> list[int]:
        """Return token ids; a text that begins with the BOS token gets no second one."""
        if add_special_tokens is None and string.startswith(self.tokenizer.decode(self.prefix_token_id)):
            add_special_tokens = False
        settings = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return [int(token) for token in self.tokenizer.encode(string, **settings)]

    def _loglikelihood_tokens(self, requests: list[Encoded], **kwargs: object) -> list[tuple[float, bool]]:
        asked, answers = [], []
        for _, context, continuation in requests:
            asked.append(self._request(context, len(continuation)))
            answers.append(Answer(tuple(continuation), "", truncated=True))
        return self.engine.continuations(asked, answers, self.kept)

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Return the log-likelihood of whole texts in nats, in windows of the model's context."""
        totals = []
        for (text,) in (request.args for request in requests):
            windows = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.longest, 1)
            parts = [(("", ""), *make_disjoint_window(window)) for window in windows]
            totals.append(sum(value for value, _ in self._loglikelihood_tokens(parts)))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Return answers cut before the first stop text; greedy unless the task samples."""
        settings = [normalize_gen_kwargs(request.args[1]) for request in requests]
        groups: dict[Decoding, list[int]] = {}
        for i, wanted in enumerate(settings):
            groups.setdefault(_decoding(wanted), []).append(i)
        texts = [""] * len(requests)
        for decoding, members in groups.items():
            contexts = [self.tok_encode(requests[i].args[0]) for i in members]
            asked = [self._request(context, decoding.max_new_tokens) for context in contexts]
            for i, answer in zip(members, self.engine.generate(asked, decoding), strict=True):
                (whole,) = answer_texts(self.tokenizer, [answer.tokens], self._stop)
                texts[i] = _cut(whole, settings[i]["until"])
        return texts

    def _request(self, context: list[int], room: int) -> Request:
        """Return a request that leaves `room` tokens of the model's context free."""
        kept = tuple(context[-max(1, self.longest - room) :])
        return Request(self.spec, "", prompt_id=str(kept), tokens=kept)


def _decoding(settings: Mapping[str, Json]) -> Decoding:
    """Translate normalised generation settings of lm-eval."""
    temperature = settings.get("temperature", 0.0)
    top_p = settings.get("top_p", 1.0) if temperature else 1.0
    return Decoding(max_new_tokens=settings["max_gen_toks"], temperature=temperature, top_p=top_p)


def _cut(text: str, stops: list[str]) -> str:
    for stop in filter(None, stops):
        text = text.partition(stop)[0]
    return text
