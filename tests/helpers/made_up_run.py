"""The files of an invented run: numbers like those of a search, made in no time."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np

WIDTHS = {"stem": 16, "block1_expand": 64, "block2_expand": 64, "block2_project": 24, "head": 64}
# Multiply-accumulates and parameters of a layer at full width.
LAYERS = {
    "stem": (112_896, 144),
    "block1_expand": (200_704, 1_024),
    "block2_expand": (75_264, 1_536),
    "block2_project": (301_056, 1_536),
    "head": (18_816, 1_536),
    "logits": (640, 650),
}
BASELINES = ("uniform", "shallow", "deep")


def write(
    folder: pathlib.Path,
    episodes: int = 40,
    seed: int = 0,
    latency: bool = True,
    stage: str = "export",
    curves: bool = False,
) -> pathlib.Path:
    """Writes the files of a run.

    Args:
        folder: the workdir, which is created.
        episodes: number of episodes of AMC and of random search.
        seed: seed of all numbers.
        latency: whether there is a budget of latency too.
        stage: the last stage that was done: `episodes` (interrupted), `search` or `export`.
        curves: whether a policy asked what the groups lose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    dense = {
        "macs": sum(m for m, _ in LAYERS.values()),
        "params": sum(p for _, p in LAYERS.values()),
    }
    if latency:
        dense["latency"] = 1.25
    bounds = {
        kind: value / 2 if kind == "latency" else value // 2
        for kind, value in dense.items()
        if kind != "params"
    }
    plays = [(name, 0) for name in BASELINES]
    plays += [(name, i) for name in ("amc", "random") for i in range(episodes)]
    records = []
    for policy, episode in plays:
        learnt = 0.06 * (1 - math.exp(-episode / 20)) if policy == "amc" else 0
        accuracy = 0.85 + learnt + rng.uniform(-0.04, 0.04)
        ratios = rng.uniform(0.3, 0.9, len(WIDTHS))
        record = {
            "policy": policy,
            "episode": episode,
            "reward": accuracy - 1,
            "score": accuracy,
            "macs": int(dense["macs"] * rng.uniform(0.45, 0.5)),
            "params": int(dense["params"] * rng.uniform(0.3, 0.6)),
            "actions": ratios.tolist(),
            "counts": [round(r * w) for r, w in zip(ratios, WIDTHS.values(), strict=True)],
            "seconds": 0.1,
        }
        if latency:
            record["latency_ms"] = dense["latency"] * rng.uniform(0.4, 0.5)
        if policy == "amc":
            record |= {"sigma": 0.5 * 0.95 ** max(0, episode - 10), "baseline": -0.1}
        records.append(record)
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (folder / "episodes.jsonl").write_text(lines)
    best: dict[str, dict] = {}
    for record in records:
        if record["reward"] > best.get(record["policy"], record)["reward"]:
            best[record["policy"]] = record
        best.setdefault(record["policy"], record)
    plans = {} if stage == "episodes" else {name: _plan(r["counts"]) for name, r in best.items()}
    search = {
        "bounds": bounds,
        "dense": {"score": 0.978, **dense},
        "name": "made_up_net",
        "groups": [
            {"name": name, "channels": width, "producers": [name], "consumers": ["next"]}
            for name, width in WIDTHS.items()
        ],
        "layers": [
            {"name": name, "class": "Conv2D", "macs": macs, "params": params}
            for name, (macs, params) in LAYERS.items()
        ],
        "plans": plans,
    }
    _write(folder / "search.json", search)
    given = {"macs": 0.5, **({"latency": 0.5} if latency else {})}
    config = {
        "budget": given,
        "search": {"episodes": episodes, "seed": seed, "reward": "err"},
        "note": "</script><b>&",  # must come out as text
    }
    _write(folder / "config.json", config)
    if curves:
        _write(folder / "curves.json", {"of": "", "curves": _curves(rng)})
    if latency:
        _write(folder / "latency.json", _latency(rng))
    if stage != "episodes":
        _write(folder / "result.json", _result(best, dense, bounds, seed, episodes, stage))
    return folder


def _curves(rng: np.random.Generator) -> dict:
    """Losses that fall by a power of ten for each quarter of the channels, and end at none."""
    return {
        name: {
            "counts": [width // 4, width // 2, 3 * width // 4, width],
            "losses": [*(10.0 ** -np.arange(3) * rng.uniform(0.5, 2)).tolist(), 0.0],
        }
        for name, width in WIDTHS.items()
    }


def _plan(counts: list[int]) -> dict:
    left = [count / width for count, width in zip(counts, WIDTHS.values(), strict=True)] + [1]
    return {
        "kept": counts,
        "macs": [round(share * m) for share, (m, _) in zip(left, LAYERS.values(), strict=True)],
        "params": [round(share * p) for share, (_, p) in zip(left, LAYERS.values(), strict=True)],
    }


def _latency(rng: np.random.Generator) -> dict:
    measured = rng.uniform(0.4, 1.25, 9)
    return {
        "conditions": {},
        "examples": [[list(WIDTHS.values()), ms] for ms in measured],
        "foreseen": (measured * rng.normal(1, 0.03, 9)).tolist(),
        "measured": [
            {"counts": list(WIDTHS.values()), "ms": 0.61, "dense_ms": 1.26, "foreseen_ms": 0.6}
        ],
    }


def _result(best, dense, bounds, seed, episodes, stage) -> dict:
    chosen = best["amc"]
    measures = {
        name: {
            "score": r["score"] - 0.01,
            "macs": r["macs"],
            "params": r["params"],
            "reward": r["reward"],
            "search_score": r["score"],
        }
        for name, r in best.items()
    }
    reached = {**measures["amc"], "latency": chosen.get("latency_ms")}
    result = {
        "seconds": {"search": 31.5},
        "commands": {"search": "amc-search --config=made_up.py --workdir=run"},
        "dense": {**dense, "score": 0.979, "search_score": 0.978},
        "pruned": {key: reached[key] for key in ("score", "macs", "params")},
        "budget": {
            kind: {"bound": bound, "reached": reached[kind], "dense": dense[kind]}
            for kind, bound in bounds.items()
        },
        "policies": measures,
        "chosen": "amc",
        "episodes": episodes,
        "seed": seed,
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
    }
    if stage != "export":
        return result
    result["finetuned"] = {
        **{"score": 0.975, "macs": chosen["macs"], "params": chosen["params"], "bytes": 90_000},
        **{"latency_ms": 1.5, "latency_ms_min": 1.3, "latency_ms_max": 2.0},
    }
    result["tflite"] = {
        "model_float32.tflite": _file(0.975, 51_664, 0.021, 6.7e-6),
        "model_int8.tflite": _file(0.974, 36_672, 0.017, 1.7),
        "model_float16.tflite": _file(0.5, 31_000, 0.022, 9.0, within_tolerance=False),
        "plans/dense_float32.tflite": _file(0.979, 96_896, 0.034, 5e-6),
    }
    result["seconds"] |= {"finetune": 70.0, "export": 20.0}
    return result


def _file(accuracy, size, ms, error, **more) -> dict:
    times = {"latency_ms": ms, "latency_ms_min": 0.95 * ms, "latency_ms_max": 1.1 * ms}
    return {
        **{"score": accuracy, "bytes": size, "max_abs_error": error, "agreement": 1.0},
        **times,
        **more,
    }


def _write(path: pathlib.Path, content: dict) -> None:
    path.write_text(json.dumps(content))
