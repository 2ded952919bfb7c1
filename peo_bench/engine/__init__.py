"""The engine: runs the policy specs of all methods on Hugging Face models, mixed in one batch."""
