"""The sections of RESULTS.md about searches side by side: two commits, rules, searchers."""

from __future__ import annotations

import statistics

from benchmarks.common import comparison, record


def versus(entry: dict) -> str:
    del entry
    entries = record.last("versus", "base_commit", "network", "macs", "episodes", "command")
    rows = []
    for e, seeds in _together(entries, "base_commit", "network", "macs", "episodes"):
        name = f"{e['network']}, {e['macs']:.0%} MACs"
        for s in seeds:
            rows.append(
                (
                    name,
                    s["seed"],
                    f"{s['ours']['episode_seconds']:.2f} / {s['base']['episode_seconds']:.2f}",
                    *(_ratio(s[key]) for key in ("episode_ratio", "time_to_equal_ratio")),
                    f"{s['ours']['seconds']:,.0f} / {s['base']['seconds']:,.0f}",
                    _ratio(s["peak_memory_ratio"]),
                    "",
                    f"{s['accuracy']:.2%} / {s['base_accuracy']:.2%}",
                    "{:+.2%} ({:+.2%} to {:+.2%})".format(*s["better_by"]),
                    _named(s["one_shot"]),
                )
            )
        rows.append(
            (
                name,
                "median",
                "",
                *(_ratio(_median(seeds, key)) for key in ("episode_ratio", "time_to_equal_ratio")),
                "",
                _ratio(_median(seeds, "peak_memory_ratio")),
                "" if e["floor_ratio"] is None else _ratio(e["floor_ratio"]),
                f"{_median(seeds, 'accuracy'):.2%} / {_median(seeds, 'base_accuracy'):.2%}",
                "",
                f"dense {e['dense_accuracy']:.2%}",
            )
        )
    header = (
        "network",
        "seed",
        "seconds an episode, ours / base",
        "ratio",
        "time to equal / base's whole search",
        "whole search, s",
        "peak memory, ours / base",
        "score + refit / floor",
        "accuracy, ours / base",
        "better by (95 %)",
        "plans without a search",
    )
    trees = ", ".join(
        dict.fromkeys(
            f"{e['commit'][:7]}{' with changes' if e['uncommitted_changes'] else ''} (ours) beside "
            f"{e['base_commit'][:7]} (base)"
            for e in entries
        )
    )
    return record.section(
        f"The default searches of two commits, in turn: {trees}. All plans are scored by one "
        "measure, the refit in order of this tree on the test images, before fine-tuning. Time to "
        "equal is the seconds, set-up included, until our best plan so far was by this measure at "
        "least as good as the plan with which the base's search ended.",
        header,
        rows,
        entries,
    )


def found() -> str:
    """Tabulates for docs/search.md what default searches found, a row for each network and budget.

    Seeds that ran beside an older search come first; `search.py` adds others.
    """
    seeds: dict[tuple, dict[int, dict[str, float]]] = {}
    entries = record.last("versus", "base_commit", "network", "macs", "episodes", "command")
    for e in entries:
        runs = seeds.setdefault((e["network"], e["macs"], e["episodes"]), {})
        for s in e["seeds"]:
            older = {"older": s["base_accuracy"], "dense": e["dense_accuracy"]}
            runs[s["seed"]] = {"amc": s["accuracy"], **older, **s["one_shot"]}
    for e in record.entries("search"):
        policies = {name: p["test_accuracy"] for name, p in e["policies"].items()}
        if "commit" not in e or not policies.keys() >= {"amc", "uniform", "knapsack"}:
            continue  # of an older default
        runs = seeds.setdefault((e["network"], e["macs"], e["episodes"]), {})
        runs.setdefault(e["seed"], policies | {"dense": e["dense_test_accuracy"]})
    columns = ("dense", "uniform", "knapsack", "older", "amc")
    rows = []
    for (network, macs, episodes), runs in sorted(seeds.items(), key=lambda x: (-x[0][1], x[0])):
        values = ([r[c] for r in runs.values() if c in r] for c in columns)
        cells = (_spread(v) if v else "" for v in values)
        rows.append((network, f"{macs:.0%}", f"{episodes} x {len(runs)}", *cells))
    header = ("network", "MACs", "episodes x seeds", "dense", "uniform", "`knapsack`, no search")
    older = f"search of {entries[0]['base_commit'][:7]}, one seed"
    return record.markdown((*header, older, "**AMC**"), rows)


def _spread(values: list[float]) -> str:
    middle = f"{statistics.median(values):.1%}"
    return middle if max(values) == min(values) else f"{middle} ({_range(values, '.1%')})"


def fidelities(entry: dict) -> str:
    del entry
    entries = record.last("fidelities", "network", "macs", "plans", "seed")
    rows = [
        (
            f"{e['network']}, {e['macs']:.0%} MACs",
            row["refit"],
            f"{row['samples']:,}",
            f"{row['refit_seconds']:.2f}",
            "{:.3f} ({:.3f} to {:.3f})".format(row["correlation"], *row["between"]),
            f"{row['error']:.1%}",
            f"{row['lost']:.1%}",
        )
        for e in entries
        for row in e["rows"]
    ]
    header = (
        "network",
        "refit",
        "images scored",
        "refit, s",
        "rank correlation (95 %)",
        "error",
        "lost by five",
    )
    facts = "; ".join(
        f"{e['network']}: {e['plans']} plans, {e['final']['least']:.3f} to "
        f"{e['final']['most']:.3f}, final refit {e['final_seconds']:.1f} s"
        for e in entries
    )
    return record.section(
        "What a cheap score of a plan says of its divergence after the final refit, on all "
        f"validation images ({facts}). `64x8`: the quick refit over 64 images, with 8 rows for "
        "each feature. Error: standard deviation of the logarithm of cheap over final. Lost by "
        "five: how much farther the best of the cheap score's best five is than the best plan.",
        header,
        rows,
        entries,
    )


def _together(entries: list[dict], *keys: str) -> list[tuple[dict, list[dict]]]:
    """Joins entries that differ in their seeds only: the last of each kind, and all its seeds."""
    found: dict[tuple, tuple[dict, dict[int, dict]]] = {}
    for e in entries:
        key = tuple(str(e[key]) for key in keys)
        seeds = found[key][1] if key in found else {}
        found[key] = e, {**seeds, **{s["seed"]: s for s in e["seeds"]}}
    return [(e, [seeds[seed] for seed in sorted(seeds)]) for e, seeds in found.values()]


def _median(seeds: list[dict], key: str) -> float | None:
    return comparison.median([s[key] for s in seeds])


def _ratio(value: float | None) -> str:
    return "never" if value is None else f"{value:.2f}"


def _named(accuracies: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2%}" for name, value in accuracies.items())


def allocations(entry: dict) -> str:
    del entry
    entries = record.last("allocations", "network", "macs", "set")
    rows = [
        (
            f"{e['network']}, {e['macs']:.0%} MACs" + "".join(f", {change}" for change in e["set"]),
            row["importance"],
            row["rule"],
            f"{row['accuracy']:.2%}",
            f"{min(row['accuracies']):.2%} to {max(row['accuracies']):.2%}",
            "{:.1%} to {:.1%}".format(*row["interval"]),
            f"{row['macs_ratio']:.1%}",
            f"{row['rule_cpu_seconds']:.1f} + {row['importance_cpu_seconds']:.1f}",
        )
        for e in entries
        for row in sorted(e["rows"], key=lambda row: -row["accuracy"])
    ]
    header = (
        "network",
        "which channels",
        "how many",
        "accuracy",
        "range of seeds",
        "95 %",
        "MACs",
        "processor s, rule + importance",
    )
    dense = ", ".join(
        dict.fromkeys(f"{e['network']} {e['dense_accuracy']:.2%} dense" for e in entries)
    )
    return record.section(
        "Plans that need no search, refitted in order, on the test images, before fine-tuning "
        f"({dense}). The interval is that of the images.",
        header,
        rows,
        entries,
    )


def searchers(entry: dict) -> str:
    del entry
    entries = record.last("searchers", "names", "policies", "macs", "episodes", "set", "seeds")
    found: dict[tuple, dict[str, dict[str, list]]] = {}
    for e in entries:
        for network, of_network in e["networks"].items():
            name = f"{network}, {e['macs']:.0%} MACs" + "".join(f", {c}" for c in e["set"])
            for policy, after in of_network["best_after"].items():
                for count, best in after.items():
                    lists = found.setdefault((name, policy, count), {})
                    for key, values in best.items():
                        lists.setdefault(key, []).extend(values)
                last = found[name, policy, max(after, key=int)]
                last.setdefault("last", []).extend(of_network["last"][policy])
    rows = [
        (
            *key,
            len(lists["score"]),
            f"{statistics.median(lists['score']):.2%} ({_range(lists['score'], '.2%')})",
            f"{statistics.median(lists['reward']):.3f} ({_range(lists['reward'], '.3f')})",
            f"{statistics.median(lists['last']):.3f}" if "last" in lists else "",
            f"{statistics.median(lists['seconds']):,.0f}",
        )
        for key, lists in sorted(found.items(), key=lambda item: (item[0][0], int(item[0][2])))
    ]
    header = (
        "network",
        "searcher",
        "evaluations",
        "seeds",
        "score, median (range)",
        "reward",
        "mean reward of the last ten",
        "seconds",
    )
    facts = "; ".join(
        f"{network}, seeds {', '.join(map(str, e['seeds']))}: {of_network['validation_images']:,} "
        f"images, set-up {of_network['set_up_seconds']:.0f} s"
        for e in entries
        for network, of_network in e["networks"].items()
    )
    return record.section(
        "The best plan so far by its reward, with the reward's refit, and the seconds until then, "
        f"set-up included ({facts}). The reward is minus the divergence of the outputs from the "
        "dense network's, unless another is set. `ddpg` is AMC's agent alone, which corrects the "
        "model of the reward in every episode (`response_share=0`); `amc` shares its episodes "
        "with that model, which `response` is alone; `paper` does not know what the groups lose.",
        header,
        rows,
        entries,
    )


def _range(values: list[float], form: str) -> str:
    return f"{min(values):{form}} to {max(values):{form}}"


SECTIONS = {
    "fidelities": ("What cheap scores say of the final one", fidelities),
    "versus": ("The search beside an older one", versus),
    "allocations": ("Plans without a search", allocations),
    "searchers": ("Searchers at equal evaluations", searchers),
}
