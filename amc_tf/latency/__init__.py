"""Latency of pruned networks, from a table of what their operators take on a device.

`latency_cost` makes a cost of channel counts, in milliseconds, of a `LatencyTable` that a device
measured: `operators` reads a TFLite file's operators as text and makes files of them; `blueprint`
tells their shapes from channel counts; `surface` says what to measure, and fills in between;
`calibration` goes from the sum of operators to the network.
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
