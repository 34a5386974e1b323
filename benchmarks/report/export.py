"""The sections of RESULTS.md about files: every format of a network, and sparse networks."""

from __future__ import annotations

import statistics

from amc_tf.runs.former_keys import with_names_of_now
from benchmarks.common import record


def export(entry: dict) -> str:
    del entry
    entries = record.last("export", "network", "plan", "keep_float", "bias_samples")
    rows = []
    for e in entries:
        reference = e["networks"]["dense"]["files"]["float32"]
        for label, network in e["networks"].items():
            for name, file in network["files"].items():
                # The entry without remedies has this row already.
                if name == "float32" and _remedies(e, "int8"):
                    continue
                drop = file["accuracy"] - network["files"]["float32"]["accuracy"]
                rows.append(
                    (
                        e["network"],
                        label,
                        name + _remedies(e, name),
                        f"{file['accuracy']:.2%}",
                        "" if name == "float32" else f"{100 * drop:+.2f}",
                        f"{file['bytes']:,}",
                        f"{network['files']['float32']['bytes'] / file['bytes']:.2f}x",
                        f"{file['latency_ms']:.2f} ({file['latency_ms_min']:.2f} to "
                        f"{file['latency_ms_max']:.2f})",
                        f"{reference['latency_ms'] / file['latency_ms']:.2f}x",
                    )
                )
    header = (
        "network",
        "",
        "format",
        "accuracy",
        "points against float32",
        "bytes",
        "smaller than float32",
        "latency ms (range)",
        "faster than dense float32",
    )
    images = ", ".join(dict.fromkeys(f"{e['network']} {e['test_images']:,}" for e in entries))
    return record.section(
        "Pruned networks are refitted, not fine-tuned: the points against float32 of the same "
        "network, run on the same images, show what a format costs "
        f"({images}). Latency of one thread on this host, median (range) over fresh processes, "
        "dense and pruned files interleaved.",
        header,
        rows,
        entries,
    )


def int8_drop(entry: dict) -> str:
    del entry
    entries = record.last("int8_drop", "network", "plan", "bias_samples")

    def points(gap: list[float]) -> str:
        return "{:+.2f} ({:+.2f} to {:+.2f})".format(*(100 * v for v in gap))

    rows = [
        (
            e["network"],
            label,
            f"biases corrected on {e['bias_samples']} images" if e["bias_samples"] else "",
            f"{sum(e['images'].values()):,}",
            f"{row['float32']:.2%}",
            f"{row['int8']:.2%}",
            points(row["int8_better_by"]),
            "; ".join(f"{part} {points(gap)}" for part, gap in row["each"].items()),
        )
        for e in entries
        for label, row in e["rows"].items()
    ]
    header = (
        "network",
        "",
        "remedy",
        "images",
        "float32",
        "int8",
        "points (95 %)",
        "by part",
    )
    return record.section(
        "int8 against float32 on the same images. On ImageNet these are both halves of the images: "
        "the second half, without labels, gave the ranges (and the pruned network its refit). "
        "mobilenet_v3 and vit are trained here for a short while, and fine-tuned after pruning.",
        header,
        rows,
        entries,
    )


def int8_zoo(entry: dict) -> str:
    rows = []
    for name in dict.fromkeys(row["format"] for row in entry["rows"]):
        of_format = [row for row in entry["rows"] if row["format"] == name]
        loaded = [row for row in of_format if "refused" not in row]
        worst = max(loaded, key=lambda row: row["error_of_span"])
        steps = max(loaded, key=lambda row: row["kernels_differ_by_steps"])
        kept = [row for row in loaded if row["float_operators"]]
        rows.append(
            (
                name,
                f"{len(loaded)} of {len(of_format)}",
                f"{statistics.median(row['error_of_span'] for row in loaded):.2%}",
                f"{worst['error_of_span']:.2%} ({worst['case']})",
                f"{steps['kernels_differ_by_steps']:.0f} ({steps['case']})",
                ", ".join(row["case"] for row in kept),
            )
        )
    header = (
        "format",
        "loaded",
        "median error",
        "largest error",
        "kernels differ by",
        "with float operators",
    )
    return record.section(
        f"Networks that are hard to quantise (`tests/helpers/hostile.py`), {entry['cases']} files: "
        f"{entry['loaded']} loaded by LiteRT's default kernels and its built-in ones, which agree "
        f"to two steps of the output's scale in {entry['agree']}. Errors are of the outputs' span, "
        "against Keras, differences between the kernels in steps.",
        header,
        rows,
        [entry],
    )


def _remedies(entry: dict, name: str) -> str:
    """Describes what was done for the accuracy of an integer format."""
    if not name.startswith("int8"):
        return ""
    bias = entry.get("bias_samples") and f"biases corrected on {entry['bias_samples']} images"
    kept = entry["keep_float"] and f"float: {', '.join(entry['keep_float'])}"
    return "".join(f", {words}" for words in (bias, kept) if words)


def sparsify(entry: dict) -> str:
    dense = with_names_of_now(entry["dense"])["score"]
    rows = [("dense", "100%", "", "", f"{dense:.2%}", "")]
    for number, found in enumerate(map(with_names_of_now, entry["rounds"]), start=1):
        rows.append(
            (
                f"round {number}",
                f"{found['density']:.1%}",
                f"{found['params']:,}",
                f"{found['before']:.2%}",
                f"{found['score']:.2%}",
                f"{100 * (found['score'] - dense):+.2f}",
            )
        )
    header = (
        entry["network"],
        "density",
        "parameters not zero",
        "before fine-tuning",
        "fine-tuned",
        "points against dense",
    )
    trained = [e * entry["batches"] * 128 for e in entry["epochs"]]
    refit = "after a refit by least squares" if entry["refit"] else "as cut"
    return "\n".join(
        [
            f"Accuracy on {entry['test_images']:,} test images; before fine-tuning {refit}. "
            f"Training images seen in each round: {', '.join(f'{t:,}' for t in trained)} "
            f"(an epoch is 45,000), seed {entry['seed']}.",
            "",
            record.markdown(header, rows),
        ]
    )


def sparse_refit(entry: dict) -> str:
    rows = [
        (f"{r['density']:.0%}", f"{r['cut']:.2%}", f"{r['refitted']:.2%}")
        for r in sorted(entry["rows"], key=lambda r: -r["density"])
    ]
    return "\n".join(
        [
            f"{entry['network']}, {entry['test_images']:,} test images, no training; dense "
            f"{entry['dense']:.2%}. Refitted on {entry['calibration_images']:,} images without "
            "labels.",
            "",
            record.markdown(("density of every kernel", "as cut", "refitted"), rows),
        ]
    )


def sparse_files(entry: dict) -> str:
    del entry
    entries = record.last("sparse_files", "network", "density")
    rows = [
        (
            e["network"],
            f"{e['density']:.0%}",
            name,
            f"{file['bytes']:,}",
            f"{file['latency_ms']:.2f} ({file['latency_ms_min']:.2f} to "
            f"{file['latency_ms_max']:.2f})",
            f"{e['files']['float32']['latency_ms'] / file['latency_ms']:.2f}x",
        )
        for e in entries
        for name, file in e["files"].items()
    ]
    header = ("network", "density", "file", "bytes", "latency ms (range)", "faster than float32")
    return record.section(
        "Each network's zeros are stored as numbers (`float32`, `float16`, `int8`) or left out "
        "(`..._sparse`). Both compute the same, so a difference in latency is due to the "
        "runtime's sparse kernels. One thread on this host, files interleaved, median "
        "(range) over fresh processes.",
        header,
        rows,
        entries,
    )


SECTIONS = {
    "export": ("File formats", export),
    "int8_drop": ("What int8 costs", int8_drop),
    "int8_zoo": ("Files of networks that are hard to quantise", int8_zoo),
    "sparsify": ("Fine-grained pruning", sparsify),
    "sparse_refit": ("Refit of sparse kernels", sparse_refit),
    "sparse_files": ("Sparse files", sparse_files),
}
