"""The sections of RESULTS.md about accuracy given back: without labels, and on own classes."""

from __future__ import annotations

from benchmarks.common import record


def recover(entry: dict) -> str:
    del entry
    entries = record.last("recover", "network", "plan", "settings", "folder")
    rows = [
        (
            f"{e['network']}, {e['macs_ratio']:.0%} MACs",
            e["commit"][:7] + (" with changes" if e["uncommitted_changes"] else ""),
            e["settings"]["seed"],
            f"{e['images_seen']:,}",
            f"{e['settings']['views']:,}",
            f"{e['settings']['rate']:g}",
            f"{e['kept']} of {e['epochs']}",
            f"{e['divergence_before']:.3f} / {e['divergence_after']:.3f}",
            f"{e['dense']:.2%}",
            f"{e['pruned']:.2%}",
            f"{e['recovered']:.2%}",
            f"{e['images']:,}",
            f"{e['seconds']:,}",
        )
        for e in entries
    ]
    header = (
        "network",
        "commit",
        "seed",
        "images trained on",
        "views at most",
        "rate",
        "epoch kept",
        "divergence on others, before / after",
        "dense",
        "refitted",
        "recovered",
        "images scored",
        "seconds",
    )
    return record.section(
        "Plans that were refitted on images without labels, and then trained on views of the same "
        "images towards the dense network's outputs and features. The epoch is chosen by the "
        "divergence of the outputs on a fifth of the images, which refit and recovery did not see. "
        "Seconds are those of a machine that did other work, too.",
        header,
        rows,
        entries,
    )


def own_classes(entry: dict) -> str:
    about = (
        f"{entry['network']} with a new head for ten classes (CIFAR-10, {entry['images']:,} "
        f"training images of {entry['size']} pixels, {entry['test_images']:,} test images; seed "
        f"{entry['seed']}): trained in {entry['dense_epochs']} epochs, then made small by a "
        f"search of {entry['episodes']} episodes and {entry['epochs']} epochs of `amc_tf.distill`. "
        "`uniform` is the uniform plan of the same budget of latency, refitted and fine-tuned "
        "alike; `narrow` has its widths and new weights, trained by the same recipe for all the "
        "epochs. Latency is of files timed in turn with the dense float32 file, median (range)."
    )
    rows = []
    for name, network in entry["networks"].items():
        for form, file in network["files"].items():
            low, high = file["latency_ratio_range"]
            rows.append(
                (
                    name.replace("_", " at "),
                    form,
                    f"{file['accuracy']:.2%}",
                    f"{file['bytes']:,}",
                    f"{file['latency_ratio']:.3f} ({low:.3f} to {high:.3f})",
                    f"{network['macs']:,}",
                )
            )
    header = ("network", "file", "accuracy", "bytes", "latency / dense float32", "MACs")
    return record.section(about, header, rows, [entry])


_OWN_NAMES = {
    "dense": "as it was",
    "narrow": "a narrower network with new weights",
    "uniform": "uniform pruning",
    "amc": "**amc_tf**",
}


def own() -> str:
    """Tabulates for the README what the files of one's own classes are worth, a row for each."""
    entry = record.latest("own_classes")
    dense = entry["networks"]["dense"]["files"]["float32"]
    rows = []
    order = list(_OWN_NAMES)
    for name, network in sorted(
        entry["networks"].items(), key=lambda item: order.index(item[0].partition("_")[0])
    ):
        kind, _, share = name.partition("_")
        for form, file in network["files"].items():
            if form == "float32" and kind != "dense":
                continue
            rows.append(
                (
                    f"{_OWN_NAMES[kind]}{f', {float(share):.0%} of the latency' if share else ''}",
                    form,
                    f"{file['accuracy']:.1%}",
                    f"{file['bytes'] / 1e6:.2f} MB ({dense['bytes'] / file['bytes']:.1f}x smaller)",
                    f"{1 / file['latency_ratio']:.1f}x",
                )
            )
    return record.markdown(("network", "file", "test accuracy", "size", "as fast"), rows)


SECTIONS = {
    "recover": ("Accuracy given back without labels", recover),
    "own_classes": ("A user's own ten classes", own_classes),
}
