"""Our tasks in lm-eval, and its tasks on our policies."""
