"""The sections of RESULTS.md about latency: predictions of the table, and a search by them."""

from __future__ import annotations

from benchmarks.common import plans, record


def latency(entry: dict) -> str:
    del entry
    entries = record.last("latency", "network")
    rows = [
        (
            e["network"],
            f"{e['rank_correlation']:.4f}",
            f"{e['median_error']:.1%}",
            f"{e['p95_error']:.1%}",
            f"{e['absolute']['median_error']:.1%} / {e['absolute']['p95_error']:.1%}",
            f"{e['uncalibrated']['median_error']:.1%} / {e['uncalibrated']['p95_error']:.1%}",
            f"{e['table_seconds']:.0f}",
            f"{e['operators_measured']} + {e['operators_reused']}",
            f"{e['dense_ms']:.2f}",
            f"{min(e['measured_ms']):.2f} to {max(e['measured_ms']):.2f}",
        )
        for e in entries
    ]
    header = (
        "network",
        "rank correlation",
        "median error",
        "95th percentile",
        "in ms, not as a ratio",
        "uncalibrated, in ms",
        "table s",
        "operators measured + found",
        "dense ms",
        "plans ms",
    )
    return record.section(
        f"{entries[0]['plans']} random plans of each network, predicted from the table of "
        "operators and measured whole, in turn with the dense network, on one thread of the "
        "host. Errors are of the ratio to the dense network. The networks share one table, in "
        "this order: the operators that one found there were measured for those before it. Table "
        "seconds include the time of the whole networks that calibrate it.",
        header,
        rows,
        entries,
    )


def latency_search(entry: dict) -> str:
    rows = [
        (
            name,
            f"{row['macs_ratio']:.1%}",
            f"{row['latency_ratio']:.3f} ({row['latency_ratio_range'][0]:.3f} to "
            f"{row['latency_ratio_range'][1]:.3f})",
            f"{1 / row['latency_ratio']:.2f}x",
            f"{row['accuracy']:.2%}",
            ""
            if name.startswith("latency")
            else "{:+.2%} ({:+.2%} to {:+.2%})".format(*row["latency_plan_better_by"]),
            f"`{plans.name_of(row['plan'])}`",
        )
        for name, row in entry["rows"].items()
    ]
    header = (
        "budget",
        "MACs",
        "latency / dense (range over rounds)",
        "speed-up",
        "accuracy, no fine-tuning",
        "plan by latency better by (95 %)",
        "plan in `benchmarks/plans.tar.xz`",
    )
    return record.section(
        f"{entry['network']}: {entry['episodes']} episodes of each search, seed "
        f"{entry['seed']}; {entry['images']} images, on which the dense network has "
        f"{entry['dense_accuracy']:.2%}. Files timed in turn in {entry['rounds']} rounds, one "
        "thread of the host. On the line through the plans by MACs, a plan as fast as the plan by "
        f"latency has {entry['accuracy_of_macs_plan_as_fast']:.2%}.",
        header,
        rows,
        [entry],
    )


SECTIONS = {
    "latency": ("Latency predicted and measured", latency),
    "latency_search": ("A search by latency", latency_search),
}
