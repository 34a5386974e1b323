"""The DDPG agent, in a process of its own.

Importing this package imports neither TensorFlow nor Keras: `learner` is imported by the agent's
process alone, which has Keras 2 where the user's has Keras 3.
"""
