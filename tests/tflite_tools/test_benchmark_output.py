"""The output of benchmark_model in all its vintages, whole, cut off and garbled."""

from __future__ import annotations

import dataclasses
import re
import statistics

import pytest
from benchmark_model import proto, series
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st
from places import DATA

from tflite_tools import BenchmarkResult, DeviceError, parse_benchmark, read_result_proto
from tflite_tools.benchmark_output import read_outputs

OUTPUTS = DATA / "benchmark_outputs"
# The one of 2024 has an exponent in its warm-up, and XNNPACK takes part of the network only.
TEXT_2019, TEXT_2020, TEXT_2024, TEXT_LITERT = (
    (OUTPUTS / f"{name}.txt").read_text() for name in ("2019", "2020", "2024", "litert")
)
VINTAGES = {
    TEXT_2019: BenchmarkResult(
        average_ms=66.7676,
        runs=15,
        min_ms=66.699,
        max_ms=66.838,
        std_ms=0.039,
        init_ms=9.933,
        first_ms=83.235,
        warmup_ms=76.6059,
        warmup_runs=7,
    ),
    TEXT_2020: BenchmarkResult(
        average_ms=33.2094,
        runs=50,
        min_ms=32.980,
        max_ms=33.661,
        std_ms=0.139,
        init_ms=0.855,
        first_ms=49.060,
        warmup_ms=34.8251,
        warmup_runs=15,
        peak_memory_mb=12.8672,
    ),
    TEXT_2024: BenchmarkResult(
        average_ms=115.246,
        runs=50,
        median_ms=115.350,
        min_ms=111.842,
        max_ms=119.614,
        std_ms=1.329,
        p5_ms=112.107,
        p95_ms=116.620,
        init_ms=66.002,
        first_ms=1244.567,
        warmup_ms=1234.57,
        warmup_runs=2,
        peak_memory_mb=93.2383,
    ),
    TEXT_LITERT: BenchmarkResult(
        average_ms=0.464545,
        runs=2112,
        median_ms=0.462,
        min_ms=0.442,
        max_ms=0.979,
        std_ms=0.013,
        p5_ms=0.460,
        p95_ms=0.478,
        init_ms=4.48,
        first_ms=1.033,
        warmup_ms=0.465319,
        warmup_runs=1055,
        peak_memory_mb=13.20,
    ),
}
texts = st.sampled_from(list(VINTAGES))


def parsed(text: str) -> BenchmarkResult | None:
    """None for an error, which must be the one error that is allowed."""
    try:
        return parse_benchmark(text)
    except DeviceError:
        return None


def agrees(result: BenchmarkResult | None, truth: BenchmarkResult) -> bool:
    """Whether every number is the true one; optional ones may be missing."""
    if result is None:
        return True
    pairs = zip(dataclasses.astuple(result), dataclasses.astuple(truth), strict=True)
    return all(a is None or a == pytest.approx(b, rel=1e-12) for a, b in pairs)


@pytest.mark.parametrize("text", VINTAGES, ids=["2019", "2020", "2024", "LiteRT"])
def test_every_vintage(text):
    result, truth = parse_benchmark(text), VINTAGES[text]
    assert agrees(result, truth)
    missing = [name for name, value in dataclasses.asdict(result).items() if value is None]
    assert missing == [name for name, value in dataclasses.asdict(truth).items() if value is None]
    windows = text.replace("\n", "\r\n")
    assert agrees(parse_benchmark(windows), truth)
    assert result.typical_ms == (truth.median_ms or truth.average_ms)


@pytest.mark.parametrize("text", VINTAGES, ids=["2019", "2020", "2024", "LiteRT"])
def test_every_prefix_is_right_or_an_error(text):
    results = [parsed(text[:length]) for length in range(len(text))]
    assert all(agrees(result, VINTAGES[text]) for result in results)
    # Nothing before the summary makes a result.
    summary = re.search("timings in us|BENCHMARK RESULTS", text).start()
    assert not any(results[:summary])


def _printed(warmup: list[int], timed: list[int]) -> str:
    """What TFLite's tool of 2024 prints for runs of these microseconds."""
    lines = [
        "Initialized session in 12.345ms.",
        series(warmup),
        series(timed),
        f"Inference timings in us: Init: 12345, First inference: {warmup[0]}, "
        f"Warmup (avg): {statistics.fmean(warmup):.6g}, "
        f"Inference (avg): {statistics.fmean(timed):.6g}",
    ]
    return "".join(f"INFO: {line}\n" for line in lines)


@pytest.mark.parametrize("runs", [1, 3], ids=["one", "equal"])
@pytest.mark.parametrize(
    "microseconds", [1, 999_999, 1_000_000, 1_234_565, 2_345_678, 9_999_995, 987_654_321]
)
def test_runs_slower_than_a_second(microseconds, runs):
    text = _printed([microseconds + 17], [microseconds] * runs)
    result = parse_benchmark(text)
    assert result.average_ms == result.median_ms == result.max_ms == microseconds / 1e3
    assert result.runs == runs and result.warmup_ms == result.first_ms
    # One more in the last digit that the summary prints is another number.
    printed = float(f"{microseconds:.6g}")
    step = 10 ** max(0, len(str(int(printed))) - 6)
    other = f"Inference (avg): {printed + step:.6g}"
    with pytest.raises(DeviceError, match="contradicts itself"):
        parse_benchmark(re.sub(r"Inference \(avg\): .*", other, text))


@settings(max_examples=200, deadline=None)
@given(texts, st.data())
def test_lost_doubled_and_swapped_lines(text, data):
    lines = text.splitlines(keepends=True)
    places = st.integers(0, len(lines) - 1)
    order = list(range(len(lines)))
    for kind in data.draw(st.lists(st.sampled_from(["lose", "double", "swap"]), max_size=4)):
        i, j = data.draw(places) % len(order), data.draw(places) % len(order)
        if kind == "swap":
            order[i], order[j] = order[j], order[i]
        elif kind == "double":
            order.insert(j, order[i])
        elif len(order) > 1:
            del order[i]
    assert agrees(parsed("".join(lines[i] for i in order)), VINTAGES[text])


@settings(max_examples=200, deadline=None)
@given(st.lists(texts, min_size=2, max_size=3))
def test_two_outputs_in_one_text_are_an_error(several):
    assert parsed("".join(several)) is None


@settings(max_examples=600, deadline=None)
@given(texts, st.data())
def test_garbled_characters(text, data):
    """The average stands twice, so no single change can make it wrong unnoticed."""
    place = data.draw(st.integers(0, len(text) - 1))
    inserted = data.draw(st.text("0123456789.e+-=() \nINFOcountavg", max_size=2))
    removed = data.draw(st.integers(0, 2))
    result = parsed(text[:place] + inserted + text[place + removed :])
    if result is None:
        return
    truth = VINTAGES[text]
    # LiteRT's second mention is rounded to a hundredth of a millisecond.
    rounding = 0.0101 if text is TEXT_LITERT else 0
    assert result.average_ms == pytest.approx(truth.average_ms, rel=1e-9, abs=rounding)
    assert result.warmup_ms == pytest.approx(truth.warmup_ms, rel=1e-9, abs=rounding)
    # A number told once can be wrong only if it is the very one that was garbled.
    line = text.count("\n", 0, place)
    touched = "\n".join(text.split("\n")[line : line + 2])
    if not re.search(r"count=|Init|memory", touched):
        assert agrees(result, truth)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("count=50 curr=12(all same)", (50, 0.012, None)),
        ("count=50 curr=12(all same) p5=12 median=12 p95=12", (50, 0.012, 0.012)),
        ("count=1 curr=12", (1, 0.012, None)),
        ("count=1 curr=12 p5=12 median=12 p95=12", (1, 0.012, 0.012)),
    ],
)
def test_equal_and_single_runs(line, expected):
    text = (
        "count=3 first=20 curr=10 min=10 max=20 avg=13.3333 std=4\n"
        f"{line}\nInference timings in us: Init: 855, First inference: 20, "
        "Warmup (avg): 13.3333, Inference (avg): 12\n"
    )
    result = parse_benchmark(text)
    assert (result.runs, result.average_ms, result.min_ms, result.max_ms, result.std_ms) == (
        *expected[:2],
        0.012,
        0.012,
        0.0,
    )
    assert result.typical_ms == 0.012


def test_no_warmup_and_no_runs():
    summary = "Inference timings in us: Init: 855, First inference: 0, Warmup (avg): nan, "
    timed = "count=2 first=20 curr=10 min=10 max=20 avg=15 std=5\n"
    result = parse_benchmark(f"count=0\n{timed}{summary}Inference (avg): 15\n")
    assert (result.runs, result.average_ms, result.warmup_runs) == (2, 0.015, 0)
    with pytest.raises(DeviceError, match="timed no run.*count=0"):
        parse_benchmark(f"{timed}count=0\n{summary}Inference (avg): nan\n")


GPU = "the model graph will be"


@pytest.mark.parametrize(
    "line",
    [
        "WARN: Unconsumed cmdline flags: --use_xnnpak=true",
        "ERROR: Failed to parse flag '--num_runs=many'",
        f"INFO: Explicitly applied GPU delegate, and {GPU} partially executed by the delegate w/ 2"
        " delegate kernels.",
        "INFO: Though NNAPI delegate is explicitly applied, the model graph will not be executed "
        "by the delegate.",
        f"Applied GPU delegate, and {GPU} partially executed w/ the delegate.",
        "ERROR: Disallowed CPU fallback detected.",
        "ERROR: Failed to apply GPU delegate.",
        "VERBOSE: Replacing 58 out of 60 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding"
        " 3 partitions for the whole graph.",
        "ERROR: Benchmarking failed.",
    ],
)
@pytest.mark.parametrize("text", VINTAGES, ids=["2019", "2020", "2024", "LiteRT"])
def test_refused_runs_quote_the_line(text, line):
    with pytest.raises(DeviceError) as caught:
        parse_benchmark(f"{line}\n{text}")
    assert line in str(caught.value)
    assert not caught.value.transient


@pytest.mark.parametrize(
    "line",
    [
        f"INFO: Explicitly applied XNNPACK delegate, and {GPU} partially executed by the delegate "
        "w/ 2 delegate kernels.",
        "INFO: Though XNNPACK delegate is explicitly applied, the model graph will not be executed "
        "by the delegate.",
        f"INFO: Explicitly applied GPU delegate, and {GPU} completely executed by the delegate.",
        "VERBOSE: Replacing 60 out of 60 node(s) with delegate (TfLiteGpuDelegateV2) node.",
    ],
)
def test_runs_as_asked_for_pass(line):
    assert agrees(parse_benchmark(f"{line}\n{TEXT_2024}"), VINTAGES[TEXT_2024])


def test_errors_quote_the_line_and_are_transient():
    with pytest.raises(DeviceError, match="avg=33x09.4") as caught:
        parse_benchmark(TEXT_2020.replace("avg=33209.4", "avg=33x09.4"))
    assert caught.value.transient
    with pytest.raises(DeviceError, match="0 statistics lines.*instead of two"):
        parse_benchmark("")
    with pytest.raises(DeviceError, match="summary.*missing.*count=50 first=33230"):
        parse_benchmark(TEXT_2020[: TEXT_2020.index("\nInference timings")])


TIMES, WARMUP = [1200, 1000, 1100, 1000], [9000, 1500]
# By hand: the mean is 1075, the deviation sqrt(6875) = 82.9; ranks 0, 2 and 3 of four.
PROTO_TRUTH = {
    "average_ms": 1.075,
    "runs": 4,
    "median_ms": 1.1,
    "min_ms": 1.0,
    "max_ms": 1.2,
    "std_ms": 0.0829156,
    "p5_ms": 1.0,
    "p95_ms": 1.2,
    "init_ms": 0.5,
    "first_ms": 9.0,
    "warmup_ms": 5.25,
    "warmup_runs": 2,
    "peak_memory_mb": 12.5,
}


def test_result_file():
    result = read_result_proto(proto(500, WARMUP, TIMES, 12.5))
    assert dataclasses.asdict(result) == pytest.approx(PROTO_TRUTH, rel=1e-6)
    assert read_result_proto(proto(500, WARMUP, TIMES, 0)).peak_memory_mb is None


@pytest.mark.parametrize("number_type", ["FLOAT", "DOUBLE"])
def test_result_file_by_protobuf_itself(number_type):
    file = descriptor_pb2.FileDescriptorProto(name=f"{number_type}.proto", package=number_type)
    types = descriptor_pb2.FieldDescriptorProto
    groups = {"Latency": range(1, 11), "Memory": (3,), "Misc": (1, 2, 3, 4)}
    for name, numbers in groups.items():
        message = file.message_type.add(name=name)
        for n in numbers:
            integer = name == "Misc" and n in (2, 3)
            kind = types.TYPE_INT32 if integer else getattr(types, f"TYPE_{number_type}")
            message.field.add(name=f"f{n}", number=n, type=kind, label=types.LABEL_OPTIONAL)
    top = file.message_type.add(name="Top")
    for n, name in enumerate(groups, 2):
        kind, full = types.TYPE_MESSAGE, f".{number_type}.{name}"
        top.field.add(name=name, number=n, type=kind, type_name=full, label=types.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{number_type}.Top"))()
    order = "average min max std median p5 p95 init first warmup".split()
    for n, name in enumerate(order, 1):
        setattr(message.Latency, f"f{n}", PROTO_TRUTH[f"{name}_ms"])
    message.Memory.f3 = 12.5
    message.Misc.f1, message.Misc.f2, message.Misc.f3, message.Misc.f4 = 3.5, 4, 2, 10.0
    result = read_result_proto(message.SerializeToString())
    assert dataclasses.asdict(result) == pytest.approx(PROTO_TRUTH, rel=1e-6)


def test_every_prefix_of_a_result_file_is_an_error():
    whole = proto(500, WARMUP, TIMES, 12.5)
    for length in range(len(whole)):
        with pytest.raises(DeviceError, match="incomplete or damaged"):
            read_result_proto(whole[:length])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_result_or_the_one_error(data):
    try:
        result = read_result_proto(data)
    except DeviceError:
        return
    assert result.runs > 0 and result.average_ms >= 0


def test_result_file_and_text_must_agree():
    text = (
        "count=2 first=9000 curr=1500 min=1500 max=9000 avg=5250 std=3750\n"
        "count=4 first=1200 curr=1000 min=1000 max=1200 avg=1075 std=82\n"
    )
    # The text alone lacks the summary, which some of the tools log elsewhere on Android.
    assert read_outputs(text, proto(500, WARMUP, TIMES, 0)).median_ms == pytest.approx(1.1)
    with pytest.raises(DeviceError, match="summary"):
        read_outputs(text, None)
    with pytest.raises(DeviceError, match="tells 3 runs"):
        read_outputs(text, proto(500, WARMUP, TIMES[:3], 0))
    with pytest.raises(DeviceError, match="tells 4 runs of 1.1 ms"):
        read_outputs(text, proto(500, WARMUP, [1200, 1000, 1100, 1100], 0))
    with pytest.raises(DeviceError, match="Unconsumed"):
        read_outputs(text + "WARN: Unconsumed cmdline flags: --x\n", proto(500, WARMUP, TIMES, 0))
    assert read_outputs(TEXT_2024, None) == parse_benchmark(TEXT_2024)
