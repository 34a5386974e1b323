"""The DDPG agent, in a process of its own.

`DdpgSearcher` is its face in the user's process; it imports neither TensorFlow nor Keras. `learner`
is imported by the agent's process alone, which has Keras 2 where the user's has Keras 3.
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
