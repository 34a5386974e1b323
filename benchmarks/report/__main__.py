"""Writes RESULTS.md, and the tables in README.md and docs/, from results/*.jsonl.

python -m benchmarks.report
"""

from __future__ import annotations

import re

import numpy as np

from amc_tf.runs.former_keys import with_names_of_now
from benchmarks.common import record
from benchmarks.report import (
    export,
    faults,
    import_time,
    latency,
    loading,
    memory,
    recovering,
    search,
    searching,
    silent,
)


def spread(values: list[float], form: str) -> str:
    """Formats the median and the range."""
    low, middle, high = min(values), float(np.median(values)), max(values)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def demo(entry: dict) -> str:
    runs = entry["runs"]

    def column(get, form):
        return spread([get(run) for run in runs], form)

    def file(run, policy):
        own = run["chosen"] == policy
        return run["tflite"]["model_float32.tflite" if own else f"plans/{policy}_float32.tflite"]

    def ratio(policy):
        def get(run):
            return file(run, policy)["latency_ms"] / file(run, "dense")["latency_ms"]

        return column(get, ".2f")

    rows = [
        (
            "dense",
            column(lambda r: with_names_of_now(r["dense"])["score"], ".1%"),
            "",
            f"{runs[0]['dense']['macs']:,}",
            f"{runs[0]['dense']['params']:,}",
            f"{file(runs[0], 'dense')['bytes']:,}",
            "1",
        )
    ]
    for name, label in (("uniform", "uniform"), ("random", "random search"), ("amc", "**AMC**")):

        def of(key, name=name):
            return lambda run: with_names_of_now(run["policies"][name])[key]

        rows.append(
            (
                label,
                column(of("score"), ".1%"),
                column(of("finetuned_score"), ".1%"),
                column(of("macs"), ",.0f"),
                column(of("params"), ",.0f"),
                column(lambda r, n=name: file(r, n)["bytes"], ",.0f"),
                ratio(name),
            )
        )

    def int8(key):
        return lambda run: with_names_of_now(run["tflite"]["model_int8.tflite"])[key]

    header = (
        "network",
        "test accuracy, no fine-tuning",
        "fine-tuned",
        "MACs",
        "parameters",
        "float32 bytes",
        "latency / dense",
    )
    int8_ratio = column(lambda r: int8("latency_ms")(r) / file(r, "dense")["latency_ms"], ".2f")
    return "\n".join(
        [
            record.markdown(header, rows),
            "",
            f"The chosen network as int8: accuracy {column(int8('score'), '.1%')}, "
            f"{column(int8('bytes'), ',.0f')} bytes, latency / dense float32 {int8_ratio}.",
            "",
            f"Median (range) over seeds {', '.join(str(r['seed']) for r in runs)}; "
            f"{runs[0]['episodes']} episodes; chosen by the search: "
            f"{', '.join(r['chosen'] for r in runs)}; {column(lambda r: r['wall_seconds'], '.0f')} "
            "seconds a run. Latency of one thread on the host, files interleaved in one run.",
        ]
    )


def graphs(entry: dict) -> str:
    del entry
    header = (
        "model",
        "operations",
        "groups",
        "MACs",
        "MACs prunable",
        "with approximate groups",
        "MACs halved",
        "refused",
        "outputs moved by masking",
        "rebuilt against masked",
        "analysis s",
        "rebuild s",
    )
    models = {
        name: model
        for found in record.last("graphs", "group")
        for name, model in found["models"].items()
    }
    rows = [
        (
            name,
            m["operations"],
            m["groups"],
            f"{m['macs']:,}",
            f"{m['prunable']:.1%}",
            f"{m['prunable_approximate']:.1%}",
            f"{m['halved_macs'] / m['macs']:.1%}",
            ", ".join(m["refused"]) or "none",
            f"{m['moved']:.1f} sd",
            f"{max(m['verify'], m['verify_approximate']):.1e}",
            m["seconds"],
            m["rebuild_seconds"],
        )
        if "failed" not in m
        else (name, *[""] * 6, m["failed"], *[""] * 4)
        for name, m in models.items()
    ]
    return record.markdown(header, rows)


def random_graphs(entry: dict) -> str:
    return (
        f"{entry['graphs']} random graphs (seed {entry['seed']}) of {entry['operation_classes']} "
        f"classes of operation with {entry['groups']} groups. In all of them keeping everything "
        "was the identity, the rebuilt network of a random plan equalled the masked one, costs "
        "equalled a recount, saved models agreed, and a second pruning passed the same checks. "
        f"{entry['converted']} were converted and agreed too; TFLite lacks operators of the "
        f"others, dense or pruned. In {entry['composed']} the two plans could be written as one "
        "plan of the first model, with the same result; in the others a grouped convolution had "
        f"lost so many groups that it was pruned another way. {entry['seconds']} seconds."
    )


def refit(entry: dict) -> str:
    found = {v["variant"]: v for e in record.entries("refit") for v in e["variants"]}
    rows = [
        (name, f"{v['accuracy']:.2%}", f"{v['peak_gib']:.1f}" if "peak_gib" in v else "")
        for name, v in found.items()
    ]
    return "\n".join(
        [
            f"ResNet-56, every inner width halved ({entry['macs_ratio']:.1%} of the MACs), "
            f"{entry['test_images']:,} test images, no fine-tuning, seed {entry['seed']}; 2,000 "
            "calibration images, 10 positions of each, 4 rounds and a ridge chosen for each "
            "layer, unless the name says otherwise. Two draws of calibration images "
            "differed by up to 0.4 points.",
            "",
            record.markdown(("variant", "test accuracy", "peak GiB of the process"), rows),
        ]
    )


SECTIONS = {
    "demo": ("The demo", demo),
    "graphs": ("Graph analysis", graphs),
    "random_graphs": ("Random graphs", random_graphs),
    "refit": ("Ways to refit", refit),
    **search.SECTIONS,
    **searching.SECTIONS,
    **recovering.SECTIONS,
    **faults.SECTIONS,
    **silent.SECTIONS,
    **export.SECTIONS,
    **latency.SECTIONS,
    **loading.SECTIONS,
    **import_time.SECTIONS,
    **memory.SECTIONS,
}


def _filled(page: str, name: str, table: str) -> str:
    """Puts a table into the page's block of this name, if it has one."""
    block = rf"(<!-- {name}: [^\n]* -->\n).*?(<!-- end -->)"
    return re.sub(block, lambda m: f"{m[1]}{table}\n{m[2]}", page, flags=re.DOTALL)


def main() -> None:
    root = record.HERE.parent
    pages = {p: p.read_text() for p in (root / "README.md", *sorted((root / "docs").glob("*.md")))}
    tables = {"found": searching.found()}
    parts = [
        "# Results",
        "",
        "Generated by `python -m benchmarks.report`; every section names its command. "
        "Plans are in `plans.tar.xz`; `--plan` takes their names, with or without a folder.",
    ]
    for name, (title, render) in SECTIONS.items():
        entry = record.latest(name)
        if entry is None:
            continue
        table = render(entry)
        versions = ", ".join(f"{k} {v}" for k, v in entry["versions"].items())
        parts += [
            "",
            f"## {title}",
            "",
            f"`{entry['command']}`",
            "",
            table,
            "",
            f"Machine: {entry['machine']}. Versions: {versions}.",
        ]
        tables[name] = table
    if record.latest("own_classes") is not None:
        tables["own"] = recovering.own()
    (record.HERE / "RESULTS.md").write_text("\n".join(parts) + "\n")
    for path, page in pages.items():
        for name, table in tables.items():
            page = _filled(page, name, table)
        path.write_text(page)


if __name__ == "__main__":
    main()
