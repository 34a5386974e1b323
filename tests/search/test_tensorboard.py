"""Scalars for TensorBoard; test_search.py compares those of real searches with their logs."""

import events

from amc_tf.search.tensorboard import TensorBoardLog


def record(episode, reward=-0.5, policy="amc"):
    known = {"policy": policy, "episode": episode, "reward": reward, "score": 1 + reward}
    return {**known, "macs": 25, "params": 3, "sigma": 0.5}


def test_episodes_can_be_read_while_the_search_runs(tmp_path):
    with TensorBoardLog(tmp_path, {"macs": 100.0}) as log:
        for episode in range(3):
            log(record(episode))
            found = events.told(tmp_path / "amc")
            assert found["macs_share"] == [(i, 0.25) for i in range(episode + 1)]
        assert "params_share" not in found and "critic_loss" not in found
        log(record(0, policy="random"))
    assert events.told(tmp_path / "random")["noise"] == [(0, 0.5)]


def test_a_search_that_begins_again_tells_every_episode_once(tmp_path):
    mine = tmp_path / "amc/notes.txt"
    mine.parent.mkdir()
    mine.write_text("kept")
    cut = TensorBoardLog(tmp_path, {"macs": 100.0})
    for episode in range(3):
        cut(record(episode, -0.5))
    with TensorBoardLog(tmp_path, {"macs": 100.0}) as log:
        for episode in range(5):  # another machine's numerics may lead elsewhere
            log(record(episode, -0.25))
    assert events.told(tmp_path / "amc")["reward"] == [(i, -0.25) for i in range(5)]
    assert mine.read_text() == "kept"
