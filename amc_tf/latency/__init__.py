"""Latency of pruned networks, from a table of their operators' times on a device.

`latency_cost` makes a cost in milliseconds, a function of channel counts, from a `LatencyTable`
that a device fills. `operators` reads a TFLite file's operators as text, and makes files of them.
`blueprint` derives their shapes from channel counts. `surface` decides what to measure, and
interpolates. `calibration` goes from the sum of the operators to the network.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.latency.cost import LatencyCost as LatencyCost
    from amc_tf.latency.cost import latency_cost as latency_cost
    from amc_tf.latency.settings import LatencySettings as LatencySettings
    from amc_tf.latency.settings import open_table as open_table
    from amc_tf.latency.table import LatencyTable as LatencyTable
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.latency.cost": "LatencyCost latency_cost",
            "amc_tf.latency.settings": "LatencySettings open_table",
            "amc_tf.latency.table": "LatencyTable",
        },
    )
