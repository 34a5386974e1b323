"""TFLite files of a Keras model, checked and timed.

`Exporter` writes a file in any of `FORMATS`, runs it on the user's data and measures how far it is
from the model; `measure` times files side by side.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.export.exporter import Exporter as Exporter
    from amc_tf.export.exporter import export_tflite as export_tflite
    from amc_tf.export.formats import FORMATS as FORMATS
    from amc_tf.export.formats import Format as Format
    from amc_tf.export.rehearsal import Tried as Tried
    from amc_tf.export.rehearsal import tried as tried
    from amc_tf.export.settings import ExportSettings as ExportSettings
    from amc_tf.export.standalone import export_model as export_model
    from amc_tf.export.timing import measure as measure
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.export.exporter": "Exporter export_tflite",
            "amc_tf.export.formats": "FORMATS Format",
            "amc_tf.export.rehearsal": "Tried tried",
            "amc_tf.export.settings": "ExportSettings",
            "amc_tf.export.standalone": "export_model",
            "amc_tf.export.timing": "measure",
        },
    )
