"""The files of a run: the one place that knows their names."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A Keras model that a later stage reads.

    Attributes:
        name: the file, in the workdir.
        made_by: the command that makes it, for whoever misses it.
    """

    name: str
    made_by: str


# Of all stages.
CONFIG = "config.json"
RESULT = "result.json"
REPORT = "report.html"
COMPARISON = "comparison.html"  # of several runs, beside them
HISTORY = "history.json"  # of the fine-tuning by `Compressor.fit`
LOCK = ".lock"
PROBE = ".writable"

# Of the search.
IMPORTANCE = "importance.json"
SEARCH = "search.json"
EPISODES = "episodes.jsonl"
PLAN = "plan.json"
BEST_PLANS = "best_plans.json"
LATENCY = "latency.json"
AGENT_LOG = "agent.log"
TENSORBOARD = "tensorboard"

# Models of the stages, in their order.
DENSE = ModelFile("dense.keras", "amc-search")
PRUNED = ModelFile("pruned.keras", "amc-search")
FINETUNED = ModelFile("finetuned.keras", "amc-finetune")

SPARSE = "sparse"  # the folder of fine-grained pruning, a workdir of its own
_PLANS = "plans"  # the folder of what belongs to one policy


def finals_file(number: int = 0) -> str:
    """The log of the finalists, after the budget was tightened `number` times."""
    return f"finals{number or ''}.jsonl"


def plan_file(policy: str) -> str:
    """The best plan of a policy."""
    return f"{_PLANS}/{policy}.json"


def pruned_file(policy: str) -> ModelFile:
    """The network of a policy's best plan."""
    return ModelFile(f"{_PLANS}/{policy}.keras", PRUNED.made_by)


def finetuned_file(policy: str) -> ModelFile:
    """The same, fine-tuned for comparison."""
    return ModelFile(f"{_PLANS}/{policy}_finetuned.keras", FINETUNED.made_by)


def tflite_file(format_name: str) -> str:
    """The exported model in a format."""
    return f"model_{format_name}.tflite"


def compared_file(network: str) -> str:
    """The float32 file of a network beside the chosen one: a policy's, or `dense`."""
    return f"{_PLANS}/{network}_float32.tflite"


def is_compared(name: str) -> bool:
    """Whether a TFLite file is for comparison only."""
    return name.startswith(f"{_PLANS}/")


def round_model(number: int) -> ModelFile:
    """The model after a round of fine-grained pruning, in the folder of that."""
    return ModelFile(f"round{number}.keras", "sparsify")


def round_plan(number: int) -> str:
    """The densities of a round."""
    return f"round{number}.json"


def round_episodes(number: int) -> str:
    """The log of a round's search."""
    return f"episodes{number}.jsonl"


def round_tensorboard(number: int) -> str:
    """The folder of a round's scalars."""
    return f"{TENSORBOARD}/round{number}"
