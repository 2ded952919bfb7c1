r"""Ray2333's gpt2-large reward models on HH: `gpt2-large-helpful-reward_model`, `gpt2-large-harmless-reward_model`.

One label, higher is better for both. The tokenizer is called with the pair (question, answer), the question as a
transcript: `\n\nHuman: ...\n\nAssistant:`. GPT-2 separates the two by nothing and has no padding token of its own.
"""

from __future__ import annotations

from peo_bench.data.schema import ASSISTANT, HUMAN
from peo_bench.errors import UsageError
from peo_bench.files.dialogue import USER, folded, turns_of
from peo_bench.scorers.sequence_classification import SequenceClassifier


class HHGPT2(SequenceClassifier):
    """A sequence-classification checkpoint on HH transcripts."""

    layout = "hh-gpt2"

    def check_kind(self) -> None:
        """Refuse what is no GPT-2 with one label: the text's form belongs to these models."""
        kind = self.model.config.model_type
        if kind != "gpt2" or self.n_labels != 1:
            raise UsageError(
                f"scorer: layout hh-gpt2 is a GPT-2 with one label, and this is {kind} with {self.n_labels}: "
                "use layout: sequence-classification"
            )

    def questions(self, prompts: list[str]) -> list[str]:
        """Return transcripts; a prompt that is one already stays as it is."""
        return [prompt if prompt.endswith(ASSISTANT) else _transcript(prompt) for prompt in prompts]


def _transcript(prompt: str) -> str:
    """Return the turns of a prompt with HH's own white space; a system turn begins the first question."""
    turns = folded(turns_of(prompt))
    return "".join(f"{HUMAN if role == USER else ASSISTANT} {content}" for role, content in turns) + ASSISTANT
