"""AMC: reinforcement-learned channel pruning of Keras models for TFLite.

`compress` goes from a trained model to checked TFLite files; `Compressor` is the same as a `fit`.
The other names are its parts: `analyze` a model, `search_plan`, `rebuild`, `fine_tune`,
`export_tflite`.
"""

from amc_tf.lazy import front_door

TYPE_CHECKING = False  # as type checkers know it; importing typing takes longer than all else here

if TYPE_CHECKING:
    from amc_tf.errors import AmcError as AmcError
    from amc_tf.export.exporter import Exporter as Exporter
    from amc_tf.export.exporter import export_tflite as export_tflite
    from amc_tf.export.settings import ExportSettings as ExportSettings
    from amc_tf.graph.analysis import analyze as analyze
    from amc_tf.graph.channel_graph import ChannelGraph as ChannelGraph
    from amc_tf.graph.channel_graph import Group as Group
    from amc_tf.graph.channel_graph import Refused as Refused
    from amc_tf.graph.channel_graph import Site as Site
    from amc_tf.graph.constraints import Constraints as Constraints
    from amc_tf.graph.costs import macs as macs
    from amc_tf.graph.costs import params as params
    from amc_tf.graph.features import Feature as Feature
    from amc_tf.graph.function_macs import Work as Work
    from amc_tf.graph.inspection.listing import describe as describe
    from amc_tf.graph.layer_kinds import LayerKind as LayerKind
    from amc_tf.graph.layer_kinds import Product as Product
    from amc_tf.graph.layer_rule import Connector as Connector
    from amc_tf.graph.layer_rule import LayerRule as LayerRule
    from amc_tf.graph.layer_rule import Refusal as Refusal
    from amc_tf.graph.layer_rule import Signal as Signal
    from amc_tf.graph.network import Call as Call
    from amc_tf.graph.network import Network as Network
    from amc_tf.graph.network import Value as Value
    from amc_tf.graph.plan import Plan as Plan
    from amc_tf.graph.plan import PruningPlan as PruningPlan
    from amc_tf.graph.registration import register_layer as register_layer
    from amc_tf.graph.subclassed import functional as functional
    from amc_tf.graph.trace import Trace as Trace
    from amc_tf.keras2.convert import from_keras2 as from_keras2
    from amc_tf.keras2.convert import to_keras2 as to_keras2
    from amc_tf.latency.settings import LatencySettings as LatencySettings
    from amc_tf.pipeline.compression import Compression as Compression
    from amc_tf.pipeline.compression import compress as compress
    from amc_tf.pipeline.compressor import Compressor as Compressor
    from amc_tf.pipeline.config import default_config as default_config
    from amc_tf.pipeline.result import CompressionResult as CompressionResult
    from amc_tf.pipeline.settings import Settings as Settings
    from amc_tf.pruning.equalization import equalize as equalize
    from amc_tf.pruning.masking import mask as mask
    from amc_tf.pruning.refit.methods import Refit as Refit
    from amc_tf.pruning.residuals.folding import Residual as Residual
    from amc_tf.pruning.residuals.folding import fold_residuals as fold_residuals
    from amc_tf.pruning.residuals.folding import residuals as residuals
    from amc_tf.pruning.surgery import rebuild as rebuild
    from amc_tf.pruning.verification import verify as verify
    from amc_tf.recipes.recipe import Recipe as Recipe
    from amc_tf.recipes.recipe import distill as distill
    from amc_tf.recovery.imitation import features as features
    from amc_tf.recovery.recovery import Recovered as Recovered
    from amc_tf.recovery.recovery import recover as recover
    from amc_tf.recovery.settings import RecoverySettings as RecoverySettings
    from amc_tf.runs.choice import Candidate as Candidate
    from amc_tf.runs.choice import Choice as Choice
    from amc_tf.runs.model_files import load_model as load_model
    from amc_tf.runs.result_parts import Exported as Exported
    from amc_tf.runs.result_parts import Milliseconds as Milliseconds
    from amc_tf.search.agents.ddpg.settings import DdpgSettings as DdpgSettings
    from amc_tf.search.env.base import Outcome as Outcome
    from amc_tf.search.env.budget import Budget as Budget
    from amc_tf.search.env.budget import CountCost as CountCost
    from amc_tf.search.latency_choice import Measured as Measured
    from amc_tf.search.plan_search import search_plan as search_plan
    from amc_tf.search.result import SearchResult as SearchResult
    from amc_tf.search.settings import SearchSettings as SearchSettings
    from amc_tf.sparsity.settings import SparsitySettings as SparsitySettings
    from amc_tf.training.compile_settings import CompileSettings as CompileSettings
    from amc_tf.training.distillation import Distillation as Distillation
    from amc_tf.training.finetune import FineTuned as FineTuned
    from amc_tf.training.finetune import FineTuneSettings as FineTuneSettings
    from amc_tf.training.finetune import fine_tune as fine_tune
    from amc_tf.training.metric import Metric as Metric
    from amc_tf.training.optimizer_settings import OptimizerSettings as OptimizerSettings
    from amc_tf.training.task import Task as Task
    from amc_tf.training.uncertainty import Uncertainty as Uncertainty
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.errors": "AmcError",
            "amc_tf.export.exporter": "Exporter export_tflite",
            "amc_tf.export.settings": "ExportSettings",
            "amc_tf.graph.features": "Feature",
            "amc_tf.graph.function_macs": "Work",
            "amc_tf.graph.trace": "Trace",
            "amc_tf.graph.analysis": "analyze",
            "amc_tf.graph.channel_graph": "ChannelGraph Group Refused Site",
            "amc_tf.graph.constraints": "Constraints",
            "amc_tf.graph.costs": "macs params",
            "amc_tf.graph.inspection.listing": "describe",
            "amc_tf.graph.layer_kinds": "LayerKind Product",
            "amc_tf.graph.layer_rule": "Connector LayerRule Refusal Signal",
            "amc_tf.graph.network": "Call Network Value",
            "amc_tf.graph.plan": "Plan PruningPlan",
            "amc_tf.graph.registration": "register_layer",
            "amc_tf.graph.subclassed": "functional",
            "amc_tf.keras2.convert": "from_keras2 to_keras2",
            "amc_tf.latency.settings": "LatencySettings",
            "amc_tf.pipeline.compression": "Compression compress",
            "amc_tf.pipeline.compressor": "Compressor",
            "amc_tf.pipeline.config": "default_config",
            "amc_tf.pipeline.result": "CompressionResult",
            "amc_tf.pipeline.settings": "Settings",
            "amc_tf.pruning.equalization": "equalize",
            "amc_tf.pruning.masking": "mask",
            "amc_tf.pruning.refit.methods": "Refit",
            "amc_tf.pruning.residuals.folding": "Residual fold_residuals residuals",
            "amc_tf.pruning.surgery": "rebuild",
            "amc_tf.pruning.verification": "verify",
            "amc_tf.recovery.imitation": "features",
            "amc_tf.recovery.recovery": "Recovered recover",
            "amc_tf.recovery.settings": "RecoverySettings",
            "amc_tf.recipes.recipe": "Recipe distill",
            "amc_tf.runs.choice": "Candidate Choice",
            "amc_tf.runs.model_files": "load_model",
            "amc_tf.runs.result_parts": "Exported Milliseconds",
            "amc_tf.search.agents.ddpg.settings": "DdpgSettings",
            "amc_tf.search.env.base": "Outcome",
            "amc_tf.search.env.budget": "Budget CountCost",
            "amc_tf.search.latency_choice": "Measured",
            "amc_tf.search.plan_search": "search_plan",
            "amc_tf.search.result": "SearchResult",
            "amc_tf.search.settings": "SearchSettings",
            "amc_tf.sparsity.settings": "SparsitySettings",
            "amc_tf.training.compile_settings": "CompileSettings",
            "amc_tf.training.distillation": "Distillation",
            "amc_tf.training.finetune": "FineTuned FineTuneSettings fine_tune",
            "amc_tf.training.optimizer_settings": "OptimizerSettings",
            "amc_tf.training.metric": "Metric",
            "amc_tf.training.task": "Task",
            "amc_tf.training.uncertainty": "Uncertainty",
        },
    )

__version__ = "0.1.0"
