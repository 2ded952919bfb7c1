"""Training curves: what the training jobs of a run recorded, gathered into `curves.csv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import pandas as pd

from peo_bench.jobs.job import Handle, Job

COLUMNS = ["seed", "method", "job", "step", "name", "value"]
SHARED = "shared"
"""Stands for the method of a job that several methods needed, and that was therefore done once."""


def training_curves(handles: Mapping[str, Handle], jobs: Mapping[int, Mapping[str, Mapping[str, Job]]]) -> pd.DataFrame:
    """Return one row per value in the `curves` of a training's result; `jobs[seed][method]` are a method's jobs by id.

    A job is named by its label, with the end of its id where two jobs of a seed share a label. What wraps another
    method ("expo.modpo") trains nothing of its own, so the method inside is the one that needed the job.
    """
    tables = []
    for seed, methods in jobs.items():
        users: dict[str, list[str]] = {}
        found: dict[str, Job] = {}
        for method, own in methods.items():
            for job_id, job in own.items():
                if job_id in handles and handles[job_id].result.get("curves"):
                    users.setdefault(job_id, []).append(method)
                    found[job_id] = job
        labels = Counter(job.label for job in found.values())
        for job_id, job in found.items():
            label = job.label if labels[job.label] == 1 else f"{job.label} {job_id[-6:]}"
            owners = {user.rpartition(".")[2] for user in users[job_id]}
            method = owners.pop() if len(owners) == 1 else SHARED
            curve = pd.DataFrame(handles[job_id].result["curves"]).melt("step", var_name="name")
            tables.append(curve.assign(seed=seed, method=method, job=label))
    return pd.concat(tables, ignore_index=True)[COLUMNS] if tables else pd.DataFrame(columns=COLUMNS)
