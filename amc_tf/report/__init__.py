"""A run's files as tables, charts and one page.

`write_report` writes the page of one run, or of several beside each other; `tables.table` gives the
closing tables as text. Everything is read from the files of the run: neither TensorFlow nor Keras
is imported.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.report.html import write_report as write_report
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.report.html": "write_report",
        },
    )
