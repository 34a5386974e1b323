"""The model as groups of channels that are kept or dropped together.

`analyze` reads a Keras model into a `ChannelGraph`: the flat list of its calls (`Network`), the
sites whose weights are indexed by channels, and the groups of channels that are kept or dropped
together. A `PruningPlan` says which channels of each group are kept; `macs` and `params` compute
its exact cost.

The layer table has one row for each kind of layer; `register_layer` adds a row.
Nothing here changes a model.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.graph.analysis import analyze as analyze
    from amc_tf.graph.channel_graph import ChannelGraph as ChannelGraph
    from amc_tf.graph.channel_graph import Group as Group
    from amc_tf.graph.channel_graph import Refused as Refused
    from amc_tf.graph.channel_graph import Site as Site
    from amc_tf.graph.constraints import Constraints as Constraints
    from amc_tf.graph.constraints import Wishes as Wishes
    from amc_tf.graph.costs import COSTS as COSTS
    from amc_tf.graph.costs import Cost as Cost
    from amc_tf.graph.costs import macs as macs
    from amc_tf.graph.costs import macs_cost as macs_cost
    from amc_tf.graph.costs import params as params
    from amc_tf.graph.costs import params_cost as params_cost
    from amc_tf.graph.flattening import flatten as flatten
    from amc_tf.graph.keras_structure import infer as infer
    from amc_tf.graph.keras_structure import uncompiled as uncompiled
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
    from amc_tf.graph.plan import read_plan as read_plan
    from amc_tf.graph.registration import register_layer as register_layer
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.graph.analysis": "analyze",
            "amc_tf.graph.channel_graph": "ChannelGraph Group Refused Site",
            "amc_tf.graph.constraints": "Constraints Wishes",
            "amc_tf.graph.costs": "COSTS Cost macs macs_cost params params_cost",
            "amc_tf.graph.keras_structure": "infer uncompiled",
            "amc_tf.graph.layer_kinds": "LayerKind Product",
            "amc_tf.graph.layer_rule": "Connector LayerRule Refusal Signal",
            "amc_tf.graph.flattening": "flatten",
            "amc_tf.graph.network": "Call Network Value",
            "amc_tf.graph.plan": "Plan PruningPlan read_plan",
            "amc_tf.graph.registration": "register_layer",
        },
    )
