"""AlpacaEval's arithmetic: verdicts in, win rates out."""
