"""The sections of RESULTS.md about searches side by side: two commits, rules, searchers."""

from __future__ import annotations

from benchmarks.common import record


def versus(entry: dict) -> str:
    del entry
    entries = record.last("versus", "base_commit", "network", "macs", "episodes")
    rows = []
    for e in entries:
        name = f"{e['network']}, {e['macs']:.0%} MACs"
        for s in e["seeds"]:
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
                *(_ratio(e[key]) for key in ("episode_ratio", "time_to_equal_ratio")),
                "",
                _ratio(e["peak_memory_ratio"]),
                "" if e["floor_ratio"] is None else _ratio(e["floor_ratio"]),
                f"{e['accuracy']:.2%} / {e['base_accuracy']:.2%}",
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
    entries = record.last("searchers", "names", "policies", "macs", "episodes", "set")
    rows = []
    for e in entries:
        for network, found in e["networks"].items():
            name = f"{network}, {e['macs']:.0%} MACs" + "".join(f", {c}" for c in e["set"])
            for policy, after in found["best_after"].items():
                rows += [
                    (
                        name,
                        policy,
                        count,
                        f"{best['mean']:.2%} ({best['least']:.2%} to {best['most']:.2%})",
                        f"{best['seconds']:,.0f}",
                    )
                    for count, best in after.items()
                ]
    header = ("network", "searcher", "evaluations", "best reward (range of seeds)", "seconds")
    facts = "; ".join(
        f"{network}: seeds {', '.join(map(str, e['seeds']))}, {found['validation_images']:,} "
        f"images, set-up {found['set_up_seconds']:.0f} s"
        for e in entries
        for network, found in e["networks"].items()
    )
    return record.section(
        "Best score so far with the reward's refit, and the seconds until then, set-up included "
        f"({facts}). `ddpg` is AMC's agent without its model of the reward; `paper` does not know "
        "what the groups lose, either.",
        header,
        rows,
        entries,
    )


SECTIONS = {
    "versus": ("The search beside an older one", versus),
    "allocations": ("Plans without a search", allocations),
    "searchers": ("Searchers at equal evaluations", searchers),
}
