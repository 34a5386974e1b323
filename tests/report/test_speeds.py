"""Which files the report calls slow."""

from amc_tf.report.speeds import slower_than_float
from amc_tf.runs import layout
from amc_tf.runs.result_parts import Exported, Milliseconds


def _file(*latency):
    return Exported(score=0.9, bytes=1, max_abs_error=0.0, latency=Milliseconds(*latency))


def test_files_beyond_the_range_of_the_float_file_are_told():
    files = {
        layout.compared_file("dense"): _file(40.0, 40.0, 40.0),
        "model_float32.tflite": _file(10.0, 9.0, 11.0),
        "model_dynamic.tflite": _file(17.0, 16.0, 18.0),
        "model_int8.tflite": _file(5.0, 4.0, 6.0),
        "model_float16.tflite": _file(11.0, 10.5, 12.0),  # the ranges meet
    }
    told = {"model_dynamic.tflite": "1.7 times as slow as float32 here"}
    assert slower_than_float(files) == told


def test_without_times_nothing_is_told():
    untimed = Exported(score=0.9, bytes=1, max_abs_error=0.0)
    int8 = {"model_int8.tflite": _file(1.0, 1.0, 1.0)}
    assert slower_than_float({"model_float32.tflite": untimed, **int8}) == {}
    assert slower_than_float(int8) == {}
