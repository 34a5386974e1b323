"""The agent: what proposes how much of each group a network keeps.

A searcher knows states, actions and rewards; networks and budgets are the environment's. Importing
this package imports neither TensorFlow nor Keras: the DDPG agent runs in a process of its own.
"""

from amc_tf.agent.remote import AgentError, DdpgSearcher
from amc_tf.agent.searcher import RandomSearcher, Searcher
from amc_tf.agent.settings import DdpgSettings

__all__ = ["AgentError", "DdpgSearcher", "DdpgSettings", "RandomSearcher", "Searcher"]
