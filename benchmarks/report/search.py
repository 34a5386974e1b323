"""The sections of RESULTS.md about the search: its speed, reward, agent and findings."""

from __future__ import annotations

import numpy as np

from benchmarks.common import plans, record


def episode(entry: dict) -> str:
    del entry
    entries = record.last("episode", "network", "refit", "rounding")
    rows = [
        (
            e["network"] + (f", multiples of {e['rounding']}" if e.get("rounding") else ""),
            e["refit"],
            f"{e.get('scored_images', e['images']):,} of {e['images']:,}",
            f"{e['seconds_per_episode']:.2f} ({min(e['seconds']):.2f} to {max(e['seconds']):.2f})",
            f"{e['score_seconds']:.2f}",
            f"{e['refit_seconds']:.2f}",
            f"{e['agent_seconds']:.2f}",
            f"{e['rest_seconds']:.2f}",
            f"{e['score_refit_over_floor']:.2f}",
            f"{e.get('score_refit_over_scored_floor', e['score_refit_over_floor']):.2f}",
            f"{e['score_refit_over_usual_floor']:.2f}"
            if "score_refit_over_usual_floor" in e
            else "",
            f"{e['agent_ms_per_decision']:.1f}",
            f"{e['set_up_seconds']:.0f}",
            f"{e['peak_rss_mib']:,.0f}",
        )
        for e in entries
    ]
    header = (
        "network",
        "refit",
        "images",
        "seconds an episode (range)",
        "score",
        "refit",
        "agent",
        "rest",
        "score + refit / floor",
        "/ floor of the scored images",
        "/ usual floor",
        "agent ms a decision",
        "set-up s",
        "peak MiB",
    )
    return record.section(
        "The floor is the time of the dense network over all images, run just before by "
        "the same engine, times the plan's share of the MACs; the usual floor is that of one "
        "interpreter with all threads. With the refit `dense` the target was 1.2 times the floor. "
        "Narrow layers are slower than their share of the MACs, whatever runs them (Ways to run a "
        "plan: batches, threads, three other engines, bfloat16), and rounded counts help little.",
        header,
        rows,
        entries,
    )


def engines(entry: dict) -> str:
    del entry
    entries = record.last("engines", "model")
    ways = list(entries[0]["images_per_second"])

    def cell(e: dict, way: str) -> str:
        found = e["images_per_second"].get(way, {"failed": ""})
        if "failed" in found:
            return "failed"
        return f"{found['dense']:,.0f} / {found['half']:,.0f} ({found['half_ready_ms']:,.0f} ms)"

    rows = [(way, *(cell(e, way) for e in entries)) for way in ways]
    names = [e["model"].rpartition("/")[2] for e in entries]

    def gain(e: dict) -> str:
        found = [w for w in e["images_per_second"].values() if "failed" not in w]
        dense, half = (max(w[key] for w in found) for key in ("dense", "half"))
        return (
            f"{e['model'].rpartition('/')[2]} with {found[0]['share_of_macs']:.0%} of its MACs is "
            f"{half / dense:.2f} times as fast, not {1 / found[0]['share_of_macs']:.2f}"
        )

    return record.section(
        "Images a second, dense / every width halved (time until a plan's first image). Narrow "
        "layers fill the processor's vectors badly, whatever runs them: in the fastest way of "
        f"each, {'; '.join(map(gain, entries))}.",
        ("way", *names),
        rows,
        entries,
    )


def rank(entry: dict) -> str:
    rows = [
        (*name.split(" | "), f"{value:.2f} ({low:.2f} to {high:.2f})")
        for name, (value, low, high) in sorted(
            entry["correlations"].items(), key=lambda item: -item[1][0]
        )
    ]
    header = ("refit", "images", "measure", "count", "Spearman (90 % of bootstraps)")
    low, high = entry["fine_tuned"]["least"], entry["fine_tuned"]["most"]
    return "\n".join(
        [
            f"{entry['plans']} random plans of ResNet-56 at half its MACs; after {entry['steps']} "
            f"steps of fine-tuning {low:.1%} to {high:.1%} of 5,000 test images.",
            "",
            record.markdown(header, rows),
        ]
    )


def agent(entry: dict) -> str:
    del entry
    entries = record.last("agent", "network")
    names = list(dict.fromkeys(name for e in entries for name in e["best_after"]))

    def cell(e: dict, name: str, count: str) -> str:
        found = e["best_after"].get(name, {}).get(count)
        return f"{found['mean']:.2%} ({found['least']:.2%})" if found else ""

    counts = ("50", str(entries[0]["episodes"]))
    rows = [(name, *(cell(e, name, n) for e in entries for n in counts)) for name in names]
    header = ("searcher", *(f"{e['network']}, {n} episodes" for e in entries for n in counts))
    facts = "; ".join(
        f"{e['network']}: {e['evaluations']} real evaluations, R2 of one left out "
        f"{e['r2_left_out']:.2f}, the best of them {e['best_evaluation']:.2%}"
        for e in entries
    )
    return record.section(
        f"Best reward found, mean (least) of {entries[0]['seeds']} seeds, on Gaussian "
        f"processes fitted to real evaluations ({facts}). With a response share, DDPG had all the "
        "other turns, however good its plans were; now it gets fewer while they are not the best.",
        header,
        rows,
        entries,
    )


def _searches() -> list[dict]:
    keys = "network", "macs", "refit", "episodes", "rerank", "seed", "response_share", "commit"
    return record.last("search", *keys)


def _turns(e: dict) -> str:
    """Describes DDPG's turns: before its share was recorded, it kept every fourth."""
    if "commit" in e:
        return f"corrections, {e['commit'][:7]}"
    return "fewer as it fails" if "response_share" in e else "every fourth"


def search(entry: dict) -> str:
    del entry
    entries = _searches()
    rows = []
    kinds: dict[str, dict[tuple, list[dict]]] = {}  # by network
    for e in entries:
        kind = e["macs"], e["refit"], f"{e['episodes']} + {e['rerank']}", _turns(e)
        kinds.setdefault(e["network"], {}).setdefault(kind, []).append(e)
    for network, of_network in kinds.items():
        for (macs, refit, tries, turns), runs in sorted(of_network.items()):
            for policy in dict.fromkeys(name for e in runs for name in e["policies"]):
                found = [e["policies"][policy] for e in runs if policy in e["policies"]]
                gaps = np.mean([f["amc_better_by"] for f in found], axis=0)
                rows.append(
                    (
                        network,
                        f"{macs:.0%}",
                        refit,
                        tries,
                        turns,
                        policy,
                        len(found),
                        _range([f["search_accuracy"] for f in found]),
                        _range([f["final_accuracy"] for f in found]),
                        _range([f["test_accuracy"] for f in found]),
                        "" if policy == "amc" else "{:+.2%} ({:+.2%} to {:+.2%})".format(*gaps),
                    )
                )
        dense = [
            _range([e[key] for runs in of_network.values() for e in runs])
            for key in ("dense_accuracy", "dense_test_accuracy")
        ]
        rows.append((network, "100%", "", "", "", "dense", "", "", *dense, ""))
    header = (
        "network",
        "MACs",
        "reward's refit",
        "plans scored + refitted last",
        "DDPG's turns",
        "policy",
        "seeds",
        "with it",
        "final refit",
        "test images",
        "AMC better by (95 %)",
    )
    return record.section(
        "Accuracy before fine-tuning, mean (range) over seeds. With the reward's refit and the "
        "final refit it is measured on the reward's images, which for ImageNet are the test images "
        "too. Searches with the refit `dense` were made when `--refit=dense --rerank=3` were the "
        "defaults and the agent's warm-up took all 100 episodes. In searches with `every fourth` "
        "turn DDPG proposed every fourth plan of AMC after its warm-up, however good these were; "
        "in those with `fewer`, it proposed fewer while they were not the best so far; in those "
        "with `corrections`, at the commit named, it corrects plans of the model of the reward. "
        "The policy `response` is AMC's model of the reward without the agent.",
        header,
        rows,
        entries,
    )


def early_stop(entry: dict) -> str:
    del entry
    entries = record.last("early_stop", "network", "macs", "refit")
    rows = [
        (
            f"{e['network']}, {e['macs']:.0%} MACs, {e['refit']}",
            f"{e['plans']} x {e['images']:,} in {e['batches']}",
            z,
            f"{found['images_run']:.0%}",
            found["given_up"],
            found["better_ones_given_up"],
            f"{found['best']:.2%} / {e['best']:.2%}",
            f"{100 * found['mean_error_of_given_up']:.1f}",
        )
        for e in entries
        for z, found in e["thresholds"].items()
    ]
    header = (
        "search",
        "plans x images in batches",
        "early_stop",
        "images run",
        "plans given up",
        "of them the best so far",
        "best found / best there is",
        "points by which their estimates are off",
    )
    return record.section(
        "Plans of a search in its order; a plan is given up when its mean is `early_stop` standard "
        "errors below the best so far.",
        header,
        rows,
        entries,
    )


def _range(values: list[float], form: str = ".2%") -> str:
    mean, low, high = (f"{v:{form}}" for v in (np.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def finetune(entry: dict) -> str:
    del entry
    entries = record.last("finetune", "plan", "epochs", "rate", "share", "features", "seed")
    rows = [
        (
            f"`{plans.name_of(e['plan'])}`",
            f"{e['macs_ratio']:.2%}",
            e["epochs"],
            # Earlier rows are of the recipe of configs/cifar10.py, half of whose loss follows it.
            f"{e.get('share', 0.5):.0%}",
            e["seed"],
            f"{e['before']:.2%}",
            f"{e['after']:.2%}",
            f"{e['dense']:.2%}",
        )
        for e in entries
    ]
    header = ("plan", "MACs", "epochs", "distilled", "seed", "before", "after", "dense")
    told = "Test accuracy; `distilled` is the share of the loss that follows the dense network."
    return record.section(told, header, rows, entries)


def rescore(entry: dict) -> str:
    del entry

    def on(e: dict) -> str:
        if "images" not in e:
            return ""
        dense = f"dense {e['dense_accuracy']:.2%}"
        return f" on {e['test_images']:,} images of {e['images']} ({dense})"

    rows = [
        (f"`{plans.name_of(e['plan'])}`{on(e)}", f"{e['macs_ratio']:.2%}", f"{e['accuracy']:.2%}")
        for e in record.last("rescore", "plan", "images")
    ]
    return record.markdown(("plan", "MACs", "test accuracy, rebuilt and refitted in Keras"), rows)


SECTIONS = {
    "engines": ("Ways to run a plan", engines),
    "episode": ("Seconds of an episode", episode),
    "rank": ("Rewards against fine-tuning", rank),
    "agent": ("The agent's parts", agent),
    "search": ("What searches find", search),
    "early_stop": ("Plans given up early", early_stop),
    "rescore": ("Kept plans scored again", rescore),
    "finetune": ("After fine-tuning", finetune),
}
