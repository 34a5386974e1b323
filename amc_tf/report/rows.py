"""The rows that the charts of one run draw; the page contains them as data."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from amc_tf.report.run import Run, front
from amc_tf.runs.vocabulary import COUNTED, QUANTITIES, policy_label

Rows = list[dict[str, Any]]

# Fields of an episode that charts show; the others would only make the page larger.
_FIELDS = (
    *("episode", "reward", "best_reward", "score", "noise"),
    *(name for cost in QUANTITIES.values() for name in (cost.key, cost.share)),
)


def datasets(run: Run) -> dict[str, Rows]:
    """Returns the rows that the charts draw, by name."""
    return {
        "episodes": _episodes(run),
        "fronts": [
            {"cost": cost, "share": e[QUANTITIES[cost].share], "score": e["score"]}
            for cost in run.costs
            for e in front(run.episodes, cost, run.scores.metric)
        ],
        "bounds": _bounds(run),
        "networks": _networks(run),
        "groups": _groups(run),
        "curves": _curves(run),
        "layers": _layers(run),
        "latency": _latency(run),
    }


def _networks(run: Run) -> Rows:
    """Returns a row for each score of a network that was built: the dense one, then the policies'.

    Those that were fine-tuned have two.
    """
    result = run.result
    if result.dense is None or not result.policies:
        return []
    dense, found = result.dense, []
    names = sorted(result.policies, key=lambda name: name != result.chosen)
    networks: list[Any] = [("dense", "dense", dense, dense.longer_score)]
    for name in names:
        of = result.policies[name]
        label = policy_label(name) + (" (chosen)" if name == result.chosen else "")
        networks.append((label, "before fine-tuning", of, of.finetuned_score))
    for label, stage, network, after in networks:
        for of, score in ((stage, network.score), ("after fine-tuning", after)):
            if score is not None:
                row = {"network": label, "stage": of, "score": score, **network.costs}
                share = network.macs / dense.macs if dense.macs else 1.0
                found.append({**row, "macs_share": share})
    return found


def _bounds(run: Run) -> Rows:
    """Returns the bound on each cost as a share of the dense network's cost.

    A cost without a bound has the share of an episode, where the chart draws an invisible line.
    """
    found: Rows = []
    for cost in run.costs:
        bound = cost in run.bounds
        nowhere = front(run.episodes, cost, run.scores.metric)[0][QUANTITIES[cost].share]
        share = run.bounds[cost] / run.dense[cost] if bound else nowhere
        found.append({"cost": cost, "share": share, "bound": bound})
    return found


def _episodes(run: Run) -> Rows:
    kept = _kept(run).get(shown_policy(run))
    # Several episodes may have led to the plan shown; the first one is marked.
    first = next((i for i, e in enumerate(run.episodes) if e["counts"] == kept), None)
    return [
        {**episode_row(episode), "shown": number == first}
        for number, episode in enumerate(run.episodes)
    ]


def episode_row(episode: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of an episode that charts show."""
    known = {key: episode[key] for key in _FIELDS if key in episode}
    return {"policy": policy_label(episode["policy"]), **known}


def labels(run: Run) -> list[str]:
    """Returns the displayed names of the policies that have played, AMC first."""
    return [policy_label(name) for name in run.policies]


def _best(run: Run) -> dict[str, Mapping[str, Any]]:
    """Returns each policy's episode of the highest reward, the first of equal ones."""
    found: dict[str, Mapping[str, Any]] = {}
    for episode in run.episodes:
        other = found.setdefault(episode["policy"], episode)
        if episode["reward"] > other["reward"]:
            found[episode["policy"]] = episode
    return found


def _kept(run: Run) -> dict[str, Sequence[int]]:
    """Returns the channels that each policy's plan keeps: the final plan, or the best so far."""
    if run.plans:
        return {name: plan["kept"] for name, plan in run.plans.items()}
    return {name: episode["counts"] for name, episode in _best(run).items()}


def single(run: Run) -> list[str]:
    """Returns the displayed names of the policies with one plan."""
    played = [episode["policy"] for episode in run.episodes]
    return [policy_label(name) for name in run.policies if played.count(name) == 1]


def shown_policy(run: Run) -> str:
    """Returns the policy whose plan is shown in detail: the chosen one, or the best so far."""
    best = _best(run)
    return run.chosen or max(best, key=lambda name: best[name]["reward"], default="")


def _groups(run: Run) -> Rows:
    return [
        {
            "depth": number,
            "group": group["name"],
            "policy": policy_label(policy),
            "shown": policy == shown_policy(run),
            "channels": group["channels"],
            "kept": count,
            "ratio": count / group["channels"],
        }
        for policy, counts in _kept(run).items()
        for number, (group, count) in enumerate(
            zip(run.search.get("groups", ()), counts, strict=False), start=1
        )
    ]


def _curves(run: Run) -> Rows:
    """Returns a row for each point of a group's curve.

    A point stands for the shares `low` to `high`, up to the middles between it and its neighbours.
    No loss at all, which has no logarithm, has the colour `shade` of the least loss there is.
    """
    losses = [loss for curve in run.curves.values() for loss in curve["losses"] if loss > 0]
    numbers = {group["name"]: n for n, group in enumerate(run.search.get("groups", ()), start=1)}
    rows: Rows = []
    for name, curve in run.curves.items():
        counts = curve["counts"]
        middles = [(a + b) / 2 for a, b in itertools.pairwise(counts)]
        ends = itertools.pairwise([counts[0], *middles, counts[-1]])
        for count, loss, (low, high) in zip(counts, curve["losses"], ends, strict=True):
            if name in numbers and losses:
                rows.append(
                    {
                        "depth": numbers[name],
                        "group": name,
                        "kept": count,
                        "channels": counts[-1],
                        "low": low / counts[-1],
                        "high": high / counts[-1],
                        "loss": loss,
                        "shade": loss if loss > 0 else min(losses),
                    }
                )
    return rows


def _layers(run: Run) -> Rows:
    plan = run.plans.get(shown_policy(run))
    if plan is None:
        return []
    return [
        {
            "depth": number,
            "layer": layer["name"],
            "class": layer["class"],
            "cost": cost,
            "dense": layer[cost],
            "kept": plan[cost][number - 1],
        }
        for cost in COUNTED
        for number, layer in enumerate(run.search["layers"], start=1)
        if layer[cost]
    ]


def _latency(run: Run) -> Rows:
    # Older files have the examples alone, so that the two need not be as long.
    predictions, examples = (run.latency.get(key, ()) for key in ("foreseen", "examples"))
    calibration = zip(predictions, examples, strict=False)
    rows = [("calibration", predicted, ms) for predicted, (_, ms) in calibration]
    rows += [
        ("finalist", m["foreseen_ms"], m["ms"])
        for m in run.latency.get("measured", ())
        if "foreseen_ms" in m
    ]
    return [
        {"kind": kind, "foreseen": predicted, "measured": ms, "error": predicted / ms - 1}
        for kind, predicted, ms in rows
    ]
