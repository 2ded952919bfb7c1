"""peo-bench: which alignment method gives the best trade-off between helpful and harmless, at what price?"""

__version__ = "0.1.0"
