"""Preference pairs, prompts and given checkpoints: everything that enters a run from outside."""
