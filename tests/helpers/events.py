"""Event files of a search, read as TensorBoard reads them, and compared with its log."""

from __future__ import annotations

import json
import pathlib

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

import amc_tf


def told(folder: pathlib.Path) -> dict[str, list[tuple[int, float]]]:
    """Reads the (step, value) pairs of a TensorBoard run by tag."""
    events = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [
            (e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def check(workdir: pathlib.Path, net) -> None:
    """Checks that the events hold every episode of `episodes.jsonl` once, with its values."""
    lines = (workdir / "episodes.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    policies = {record["policy"] for record in records}
    assert {path.name for path in (workdir / "tensorboard").iterdir()} == policies
    dense = {"macs": amc_tf.macs(amc_tf.analyze(net)), "params": net.count_params()}
    for policy in policies:
        found = told(workdir / "tensorboard" / policy)
        mine = [record for record in records if record["policy"] == policy]
        rewards = [record["reward"] for record in mine]
        columns = {
            "reward": rewards,
            "best_reward": [max(rewards[: i + 1]) for i in range(len(mine))],
            "accuracy": [record["score"] for record in mine],
            "macs_share": [record["macs"] / dense["macs"] for record in mine],
            "params_share": [record["params"] / dense["params"] for record in mine],
        }
        if policy == "amc":
            # Of the demonstrations, the agent is told together after the last of them.
            columns["noise"] = [record["sigma"] for record in mine if "sigma" in record]
        for tag, values in columns.items():
            steps = [r["episode"] for r in mine if tag != "noise" or "sigma" in r]
            assert [step for step, _ in found[tag]] == steps
            assert [value for _, value in found[tag]] == pytest.approx(values, rel=1e-5), tag
        assert ("noise" in found) == (policy == "amc")
