"""The user's data and training code.

A `Task` holds the data and says how a network is compiled, trained and evaluated; `fine_tune`
trains a pruned network with it. Data may be arrays or anything that `Model.fit` iterates over.
Nothing here knows about channels or plans.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.training.compile_settings import CompileSettings as CompileSettings
    from amc_tf.training.data import Data as Data
    from amc_tf.training.finetune import FineTuned as FineTuned
    from amc_tf.training.finetune import FineTuneSettings as FineTuneSettings
    from amc_tf.training.finetune import fine_tune as fine_tune
    from amc_tf.training.fit_arguments import FitArguments as FitArguments
    from amc_tf.training.metric import Metric as Metric
    from amc_tf.training.optimizer_settings import OptimizerSettings as OptimizerSettings
    from amc_tf.training.task import Task as Task
    from amc_tf.training.uncertainty import Uncertainty as Uncertainty
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.training.compile_settings": "CompileSettings",
            "amc_tf.training.data": "Data",
            "amc_tf.training.finetune": "FineTuned FineTuneSettings fine_tune",
            "amc_tf.training.fit_arguments": "FitArguments",
            "amc_tf.training.optimizer_settings": "OptimizerSettings",
            "amc_tf.training.metric": "Metric",
            "amc_tf.training.task": "Task",
            "amc_tf.training.uncertainty": "Uncertainty",
        },
    )
