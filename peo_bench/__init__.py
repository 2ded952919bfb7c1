"""Compare alignment methods by their trade-off between helpful and harmless, and by its price."""

__version__ = "0.1.0"
