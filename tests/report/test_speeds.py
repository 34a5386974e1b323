"""Which files the report calls slow."""

from amc_tf.report.speeds import slower_than_float
from amc_tf.runs.result_parts import Exported, Milliseconds


def _file(*latency):
    return Exported(score=0.9, bytes=1, max_abs_error=0.0, latency=Milliseconds(*latency))


def test_files_beyond_the_range_of_the_float_file_are_told():
    files = {
        "float32": _file(10.0, 9.0, 11.0),
        "dynamic": _file(17.0, 16.0, 18.0),
        "int8": _file(5.0, 4.0, 6.0),
        "float16": _file(11.0, 10.5, 12.0),  # the ranges meet
    }
    assert slower_than_float(files) == {"dynamic": "1.7 times as slow as float32 here"}


def test_without_times_nothing_is_told():
    untimed = Exported(score=0.9, bytes=1, max_abs_error=0.0)
    assert slower_than_float({"float32": untimed, "int8": _file(1.0, 1.0, 1.0)}) == {}
    assert slower_than_float({"int8": _file(1.0, 1.0, 1.0)}) == {}
