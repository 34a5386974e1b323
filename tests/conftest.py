import gc
import os
import pathlib
import sys

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "helpers"))


def pytest_collection_finish():
    """Spares the collector the million objects of TensorFlow, which stay: a tenth of all time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 50)


@pytest.fixture(scope="session", autouse=True)
def forks_of_agents():
    """Forks the agents of all searches but those that test the process itself."""
    import forked_agents

    from amc_tf.search.agents.ddpg import process

    process.subprocess = forked_agents.forked()
