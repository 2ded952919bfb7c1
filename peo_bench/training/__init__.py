"""Training jobs: supervised fine-tuning, DPO aspects, MODPO, reward models, and the arithmetic on their results."""
