import logging
import subprocess
import sys
import tempfile

import numpy as np
import pytest

from amc_tf.pruning.refit.kept_rows import InFile, InMemory

SHAPES = [(5, 3), (0, 3), (700, 3)]


def _blocks(shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize("make", [InFile, InMemory])
def test_rows_of_several_layers_are_read_as_they_were_kept(make):
    keeper = make()
    layers = [_blocks(SHAPES), [b[:, :1] for b in _blocks(SHAPES)], [np.zeros((2, 0), "float32")]]
    kept = [[] for _ in layers]
    for blocks, places in zip(layers[:2], kept, strict=False):  # a batch at a time
        places.extend(keeper.keep(block) for block in blocks)
    kept[2].append(keeper.keep(layers[2][0]))
    read = [keeper.joined(places) for places in kept]
    for _ in range(2):
        for rows, blocks in zip(read, layers, strict=True):
            np.testing.assert_array_equal(rows(), np.concatenate(blocks), strict=True)


def test_rows_in_a_file_are_not_contiguous_ones_either():
    keeper, block = InFile(), np.arange(12, dtype="float32").reshape(3, 4)
    read = keeper.joined([keeper.keep(block[:, ::2]), keeper.keep(block.T[:2, :2])])
    np.testing.assert_array_equal(read(), [[0, 2], [4, 6], [8, 10], [0, 4], [1, 5]])


def test_what_cannot_be_written_stays_in_memory(monkeypatch, caplog):
    class Full:
        """A file on a disk that holds two blocks and a half; writes may be short."""

        def __init__(self, buffering):
            assert buffering == 0
            self.file, self.left = real(buffering=0), 80

        def write(self, data):
            if not self.left:
                raise OSError(28, "No space left on device")
            written = self.file.write(data[: min(self.left, 20)])
            self.left -= written
            return written

        def __getattr__(self, name):
            return getattr(self.file, name)

    real = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    keeper, blocks = InFile(), _blocks([(4, 2)] * 5)
    with caplog.at_level(logging.WARNING):
        kept = [keeper.keep(block) for block in blocks]
    assert [message for message in caplog.messages if "No space left" in message] == caplog.messages
    assert len(caplog.messages) == 1
    assert sum(place is block for place, block in zip(kept, blocks, strict=True)) == 3
    for _ in range(2):
        np.testing.assert_array_equal(keeper.joined(kept)(), np.concatenate(blocks))


def test_a_limit_of_file_sizes_is_met_by_memory():
    """What a failed write left in a buffer would fail when the file is read."""
    code = """
import resource, signal
import numpy as np
from amc_tf.pruning.refit.kept_rows import InFile
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
blocks = [np.full((25, 8), n, "float32") for n in range(6)]
keeper = InFile()
read = keeper.joined([keeper.keep(block) for block in blocks])
np.testing.assert_array_equal(read(), np.concatenate(blocks))
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_type_is_kept():
    keeper, block = InFile(), np.array([[1 / 3]])
    read = keeper.joined([keeper.keep(block)])
    np.testing.assert_array_equal(read(), block, strict=True)


def test_a_file_that_is_cut_short_is_told():
    keeper = InFile()
    read = keeper.joined([keeper.keep(np.ones((100, 100), "float32"))])
    keeper._file.truncate(1000)
    with pytest.raises(OSError, match="cut short"):
        read()
