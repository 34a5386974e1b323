"""The scalars by which a search is followed: on TensorBoard while it runs, in the report after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from amc_tf.runs.vocabulary import QUANTITIES

# Taken from the record as they are, under the name on the right; those of the agent begin with
# its exploration noise, the standard deviation of its actions.
_KEYS: Mapping[str, str] = {
    "reward": "reward",
    "accuracy": "accuracy",
    "seconds": "seconds",
    "sigma": "noise",
    "baseline": "baseline",
    "actor_loss": "actor_loss",
    "critic_loss": "critic_loss",
}


class Progress:
    """Turns the episodes of a search, in their order, into scalars.

    Args:
        dense: costs of the dense network by name: `macs`, `params`, `latency` (ms).
    """

    def __init__(self, dense: Mapping[str, float]):
        self._dense = dense
        self._best: dict[str, float] = {}  # of each policy

    def __call__(self, record: Mapping[str, Any]) -> dict[str, float]:
        """The scalars of the next episode.

        Args:
            record: of `episodes.jsonl`.

        Returns:
            What the record has of `reward`, `accuracy` (a fraction), `seconds`, `noise`,
            `baseline`, `actor_loss` and `critic_loss`; `best_reward`, of the policy so
            far; `macs_share`, `params_share` and `latency_share` of the dense network.
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
