"""Plans and weights drawn at random."""

import numpy as np

import amc_tf


def random_plan(graph, seed):
    rng = np.random.default_rng(seed)
    return amc_tf.PruningPlan(
        {
            name: np.sort(
                rng.choice(group.channels, rng.integers(1, group.channels + 1), replace=False)
            )
            for name, group in graph.groups.items()
        }
    )


def changed_weights(graph, seed):
    """Changes every kernel, and every batch norm's mean, as a refit might."""
    rng = np.random.default_rng(seed)
    return {
        f"{site.name}/{weight.name}": np.asarray(weight)
        + rng.normal(0, 0.1, weight.shape).astype("float32")
        for site in graph.sites
        for weight in getattr(site.call.operation, "weights", ())
        if weight.name in ("kernel", "pointwise_kernel", "moving_mean")
    }
