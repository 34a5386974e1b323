"""The scalars that show the progress of a search, in TensorBoard and in the report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_tf.runs.vocabulary import QUANTITIES

# Keys of the record to names of scalars. The agent's own begin with its exploration noise, the
# standard deviation of its actions.
_KEYS: Mapping[str, str] = {
    "reward": "reward",
    "score": "score",
    "seconds": "seconds",
    "sigma": "noise",
    "baseline": "baseline",
    "actor_loss": "actor_loss",
    "critic_loss": "critic_loss",
}


class Progress:
    """A function that turns the episodes of a search, in their order, into scalars.

    Args:
        dense: costs of the dense network by name: `macs`, `params`, `latency` (ms).
    """

    def __init__(self, dense: Mapping[str, float]):
        self._dense = dense
        self._best: dict[str, float] = {}  # of each policy

    def __call__(self, record: Mapping[str, Any]) -> dict[str, float]:
        """Returns the scalars of the next episode.

        Args:
            record: record of `episodes.jsonl`.

        Returns:
            Those of `reward`, `score`, `seconds`, `noise`, `baseline`,
            `actor_loss` and `critic_loss` that the record has; `best_reward`, the policy's
            best so far; `macs_share`, `params_share` and `latency_share`, the shares of the
            dense network's costs.
        """
        policy, reward = record["policy"], record["reward"]
        self._best[policy] = max(reward, self._best.get(policy, reward))
        return {
            **{name: record[key] for key, name in _KEYS.items() if key in record},
            "best_reward": self._best[policy],
            **{
                cost.share: record[cost.key] / self._dense[name]
                for name, cost in QUANTITIES.items()
                if cost.key in record and self._dense.get(name)
            },
        }
