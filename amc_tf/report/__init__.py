"""The report of a run: tables, charts and an HTML page.

`write_report` writes the page of one run, or a page that compares several. `tables.table` returns
the closing tables as text. Everything is read from the files of the run, without TensorFlow and
Keras.
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
