"""The DDPG agent, in a process of its own.

`DdpgSearcher` represents it in the user's process and imports neither TensorFlow nor Keras. Only
the agent's process imports `learner`: it uses Keras 2, whereas the user's process uses Keras 3.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.search.agents.ddpg.process import AgentError as AgentError
    from amc_tf.search.agents.ddpg.process import DdpgSearcher as DdpgSearcher
    from amc_tf.search.agents.ddpg.settings import DdpgSettings as DdpgSettings
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.search.agents.ddpg.process": "AgentError DdpgSearcher",
            "amc_tf.search.agents.ddpg.settings": "DdpgSettings",
        },
    )
