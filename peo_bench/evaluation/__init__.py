"""Scoring policies: on validation prompts while methods are built, on test prompts for the fronts."""
