"""The only place that loads language models and tokenizers."""
