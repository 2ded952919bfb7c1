"""Train the sandbox's reference policy of seed 0 and put it where the package ships it from.

python benchmarks/ship_reference.py      (finished work is found in the user's cache)

Needed after every change of the job that trains it; a test tells.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

from peo_bench.cli import cache_dir
from peo_bench.jobs.runner import Runner
from peo_bench.runs.config import resolve_config
from peo_bench.runs.request import RunRequest
from peo_bench.runs.world import build_world
from peo_bench.sandbox.reference import RECORD, WEIGHTS
from peo_bench.suites.suite import load_task


def main() -> None:
    config = resolve_config(RunRequest(methods="soup", from_scratch=True))
    trained = build_world(config, load_task(config.suite.task), seed=0).reference
    with Runner(cache_dir(), workers=1) as runner:
        folder = runner.run([trained])[trained.id].path
    content = (folder / "model" / "model.safetensors").read_bytes()
    Path(str(WEIGHTS)).write_bytes(content)
    record = {"job": trained.id, "sha256": sha256(content).hexdigest()}
    Path(str(RECORD)).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(record)


if __name__ == "__main__":
    main()
