"""The work directory of a run: its files, their content, and who may write them.

A `Workdir` reads and writes the files; each is whole or absent. The log of episodes is the
checkpoint of a search. Models are loaded in safe mode unless the user turns it off.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.runs.episode_log import EpisodeLog as EpisodeLog
    from amc_tf.runs.episode_log import read_log as read_log
    from amc_tf.runs.model_files import load_model as load_model
    from amc_tf.runs.progress import Progress as Progress
    from amc_tf.runs.provenance import command as command
    from amc_tf.runs.provenance import versions as versions
    from amc_tf.runs.workdir import Workdir as Workdir
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.runs.episode_log": "EpisodeLog read_log",
            "amc_tf.runs.model_files": "load_model",
            "amc_tf.runs.progress": "Progress",
            "amc_tf.runs.provenance": "command versions",
            "amc_tf.runs.workdir": "Workdir",
        },
    )
