"""Any `AutoModelForSequenceClassification`: one label or several, a text template or a (prompt, answer) pair.

Decoders read the last token that is not padding, encoders their first; transformers does both by the model's type.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peo_bench.errors import UsageError
from peo_bench.files.dialogue import ASSISTANT, USER, Turn, readable, shown
from peo_bench.models.controls import encode_pair
from peo_bench.models.rendering import chat_text, check_dialogue, date_remarks, names_special
from peo_bench.scorers.model import Encoded, ModelScorer, encode_forms, encoded, last_attended
from peo_bench.scorers.settings import CHAT

if TYPE_CHECKING:
    from torch import Tensor


class SequenceClassifier(ModelScorer):
    """A sequence-classification checkpoint; see `ScorerConfig` for `template`."""

    layout = "sequence-classification"

    def __init__(
        self, path: Path, precision: str | None = "float32", template: str | None = None, **settings: Any
    ) -> None:
        """Load it; without a `template` the tokenizer is called with the pair (prompt, answer)."""
        self.template = template
        super().__init__(path, precision, **settings)
        if template == CHAT:
            if self.tokenizer.chat_template is None:
                raise UsageError("scorer: template: chat, but the checkpoint's tokenizer has no chat template")
            check_dialogue(self.tokenizer)
        declared = self.model.config.get_text_config().pad_token_id
        known = declared is not None and 0 <= declared < len(self.model.get_input_embeddings().weight)
        self.declared_padding: int | None = declared if known else None

    def remarks(self) -> list[str]:
        """Return that on the date in its chat template, where that is used."""
        return date_remarks(self.tokenizer) if self.template == CHAT else []

    def end_scores(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the logits (n_texts, n_labels), each those of the text alone and unpadded.

        A decoder reads the last token that is not its configuration's padding token; where that names none, the last
        of all, whatever it is. So padding becomes a token that it skips and that ends no text.
        """
        ids, skipped = batch["input_ids"], self.declared_padding
        if skipped is None:
            end = last_attended(batch["attention_mask"])
            last = set(ids.gather(1, end[:, None])[:, 0].tolist())
            skipped = next(token for token in range(len(last) + 1) if token not in last)
            self.model.config.get_text_config().pad_token_id = skipped
        ids = ids.masked_fill(batch["attention_mask"] == 0, skipped)
        return self.model(**{**batch, "input_ids": ids}).logits

    def encode(self, prompts: list[str], answers: list[str], limit: int | None = None) -> list[Encoded]:
        """Return the tokens of the filled template, or of the pair."""
        if self.template is None:
            return self._pairs(self.questions(prompts), answers, limit)
        special = self.template != CHAT
        return encode_forms(self.tokenizer, self._form, prompts, answers, special=special, limit=limit)

    def questions(self, prompts: list[str]) -> list[str]:
        """Return the first halves of the pairs."""
        return list(map(readable, prompts))

    def _pairs(self, questions: list[str], answers: list[str], limit: int | None) -> list[Encoded]:
        """Return the tokens of (question, answer) pairs, in which no text is a control token."""
        cut = {} if limit is None else {"truncation": True, "max_length": limit}
        batch = encoded(self.tokenizer(questions, answers, **cut))
        for i, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            if names_special(self.tokenizer, [(USER, question), (ASSISTANT, answer)]):
                ids, types = encode_pair(self.tokenizer, question, answer, limit)
                batch[i] = {name: ids if name == "input_ids" else types for name in batch[i]}
        return batch

    def _form(self, turns: Sequence[Turn]) -> str:
        """Return the filled template."""
        if self.template == CHAT:
            return chat_text(self.tokenizer, turns)
        return str(self.template).format(prompt=shown(turns[:-1]), answer=turns[-1][1])
