"""The identity of a JSON value."""

from __future__ import annotations

import hashlib
import json


def digest(value: object) -> str:
    """Return 16 hex digits that identify a JSON value (keys sorted, no white space)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
