"""The section of RESULTS.md about accuracy given back without labels."""

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


SECTIONS = {"recover": ("Accuracy given back without labels", recover)}
