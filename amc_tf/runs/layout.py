"""The names of a run's files; no other module spells them out."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class ModelFile:
    """A Keras model that a later stage reads.

    Attributes:
        name: name of the file, in the work directory.
        made_by: command that makes it, for the error message if it is missing.
    """

    name: str
    made_by: str


# Files of all stages.
CONFIG = "config.json"
RESULT = "result.json"
REPORT = "report.html"
COMPARISON = "comparison.html"  # of several runs, written to the current folder
HISTORY = "history.json"  # of the fine-tuning by `Compressor.fit`
LOCK = ".lock"
PROBE = ".writable"
REHEARSAL = "rehearsal"  # a folder, removed at the end of the rehearsal

# Files of the search.
IMPORTANCE = "importance.json"
CURVES = "curves.json"  # what the groups lose
CALIBRATION = "calibration.npz"  # unless the training data is arrays
SEARCH = "search.json"
EPISODES = "episodes.jsonl"
CHOICE = "choice.json"  # of the plan among the finalists
PLAN = "plan.json"
BEST_PLANS = "best_plans.json"
LATENCY = "latency.json"
AGENT_LOG = "agent.log"
TENSORBOARD = "tensorboard"

# Models of the stages, in their order.
DENSE = ModelFile("dense.keras", "amc-search")
PRUNED = ModelFile("pruned.keras", "amc-search")
RECOVERED = ModelFile("recovered.keras", "amc-finetune")
FINETUNED = ModelFile("finetuned.keras", "amc-finetune")

SPARSE = "sparse"  # the folder of fine-grained pruning, itself a work directory
_IMPORTANCE_BY = "importance_"
_PLANS = "plans"  # the folder of the files of single policies


def importance_file(criterion: str) -> str:
    """Returns the file of scores by a criterion that is not the search's own."""
    return f"{_IMPORTANCE_BY}{criterion}.json"


def is_importance(name: str) -> bool:
    """Returns whether a file holds scores by a criterion, the search's own or another."""
    return name == IMPORTANCE or name.startswith(_IMPORTANCE_BY)


def finals_file(number: int = 0) -> str:
    """Returns the log of the finalists, after the budget was tightened `number` times."""
    return f"finals{number or ''}.jsonl"


def plan_file(policy: str) -> str:
    """Returns the file of a policy's best plan."""
    return f"{_PLANS}/{policy}.json"


def pruned_file(policy: str) -> ModelFile:
    """Returns the file of the network of a policy's best plan."""
    return ModelFile(f"{_PLANS}/{policy}.keras", PRUNED.made_by)


def step_file(policy: str, number: int) -> ModelFile:
    """Returns the file of a policy's network after a step of pruning it in steps."""
    return ModelFile(f"{_PLANS}/{policy}_step{number}.keras", FINETUNED.made_by)


def recovered_file(policy: str) -> ModelFile:
    """Returns the file of the same network after its recovery, for comparison."""
    return ModelFile(f"{_PLANS}/{policy}_recovered.keras", RECOVERED.made_by)


def recovery_backup(policy: str) -> str:
    """Returns the file of a recovery's progress, removed at its end."""
    return f"{_PLANS}/{policy}_recovery.npz"


def finetuned_file(policy: str) -> ModelFile:
    """Returns the file of the same network, fine-tuned for comparison."""
    return ModelFile(f"{_PLANS}/{policy}_finetuned.keras", FINETUNED.made_by)


def tflite_file(format_name: str) -> str:
    """Returns the file of the exported model in a format."""
    return f"model_{format_name}.tflite"


def tflite_format(name: str) -> str | None:
    """Returns the format of a file that `tflite_file` names; None for others."""
    before, after = tflite_file("*").split("*")
    known = name.startswith(before) and name.endswith(after)
    return name.removeprefix(before).removesuffix(after) if known else None


def compared_file(network: str) -> str:
    """Returns the float32 file of a network compared with the chosen one.

    Args:
        network: name of a policy, or `dense`.
    """
    return f"{_PLANS}/{network}_float32.tflite"


def is_compared(name: str) -> bool:
    """Returns whether a TFLite file is for comparison only."""
    return name.startswith(f"{_PLANS}/")


def round_model(number: int) -> ModelFile:
    """Returns the file of the model after a round of fine-grained pruning, in `SPARSE`."""
    return ModelFile(f"round{number}.keras", "sparsify")


def round_plan(number: int) -> str:
    """Returns the file of a round's densities."""
    return f"round{number}.json"


def round_episodes(number: int) -> str:
    """Returns the log of a round's search."""
    return f"episodes{number}.jsonl"


def round_tensorboard(number: int) -> str:
    """Returns the folder of a round's scalars."""
    return f"{TENSORBOARD}/round{number}"
