"""A benchmark_model in Python, with TFLite's flags and output, that runs LiteRT's interpreter.

Tests install it on the stand-in phone, with a first line that names the interpreter. MODE makes it
misbehave.
"""

import statistics
import struct
import sys
import time

MODE = ""
FLAGS = {
    "graph": str,
    "num_runs": int,
    "min_secs": float,
    "max_secs": float,
    "warmup_runs": int,
    "warmup_min_secs": float,
    "num_threads": int,
    "use_gpu": str,
    "require_full_delegation": str,
    "report_peak_memory_footprint": str,
    "result_file_path": str,
}


def series(times):
    """Makes a statistics line as stats_calculator.h prints it."""
    ordered = sorted(times)
    ranks = {p: ordered[len(times) * p // 100] for p in (5, 50, 95)}
    if ordered[0] == ordered[-1]:
        head = f"count={len(times)} curr={times[-1]}" + "(all same)" * (len(times) > 1)
    else:
        average = statistics.fmean(times)
        head = (
            f"count={len(times)} first={times[0]} curr={times[-1]} min={ordered[0]} "
            f"max={ordered[-1]} avg={average:.6g} std={int(statistics.pstdev(times))}"
        )
    return f"{head} p5={ranks[5]} median={ranks[50]} p95={ranks[95]}"


def field(number, value):
    """Encodes one protobuf field; floats take 32 bits."""
    if isinstance(value, int):
        varint = bytearray()
        while value > 127:
            varint.append(value & 127 | 128)
            value >>= 7
        return bytes([number << 3, *varint, value])
    if isinstance(value, float):
        return bytes([number << 3 | 5]) + struct.pack("<f", value)
    length = field(0, len(value))[1:]
    return bytes([number << 3 | 2]) + length + value


def proto(init, warmup, times, peak):
    """Encodes a tflite.tools.benchmark.BenchmarkResult of times in microseconds."""
    ordered = sorted(times)
    p5, median, p95 = (ordered[len(times) * p // 100] for p in (5, 50, 95))
    values = (
        *(statistics.fmean(times), ordered[0], ordered[-1], statistics.pstdev(times)),
        *(median, p5, p95, init, warmup[0], statistics.fmean(warmup)),
    )
    latency = b"".join(field(n, value / 1e3) for n, value in enumerate(values, 1))
    memory = field(1, 1024) + field(2, 2048) + (field(3, peak) if peak else b"")
    misc = field(1, 0.5) + field(2, len(times)) + field(3, len(warmup)) + field(4, 10.0)
    return field(2, latency) + field(3, memory) + field(4, misc)


def run(interpreter, runs, min_secs, max_secs):
    times, begin = [], time.perf_counter()
    while (
        len(times) < runs or time.perf_counter() - begin < min_secs
    ) and time.perf_counter() - begin <= max_secs:
        start = time.perf_counter()
        interpreter.invoke()
        times.append(max(1, round(1e6 * (time.perf_counter() - start))))
    print("INFO: " + series(times) + "\n", flush=True)
    return times


def main():
    given, unknown = {}, []
    for argument in sys.argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        if name not in FLAGS:
            unknown.append(argument)
            continue
        try:
            given[name] = FLAGS[name](value)
        except ValueError:
            print(
                f"ERROR: Failed to parse flag '{argument}'\nERROR: usage: benchmark_model <flags>"
            )
            print("Flags:")
            for flag, kind in FLAGS.items():
                print(f"\t--{flag}=\t{kind.__name__}\toptional")
            sys.exit(1)
    print("INFO: STARTING!")
    if unknown or MODE == "unconsumed":
        print("WARN: Unconsumed cmdline flags: " + (" ".join(unknown) or "--num_threads=1"))
    if MODE == "crash":
        print("ERROR: Failed to allocate tensors!")
        sys.exit(3)
    if MODE == "hang":
        time.sleep(60)
    if given.get("use_gpu") == "true":
        print(
            "VERBOSE: Replacing 58 out of 60 node(s) with delegate (TfLiteGpuDelegateV2) node, "
            "yielding 3 partitions for the whole graph."
        )

    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    begin = time.perf_counter()
    interpreter = Interpreter(given["graph"], num_threads=given["num_threads"])
    interpreter.allocate_tensors()
    init = round(1e6 * (time.perf_counter() - begin))
    for detail in interpreter.get_input_details():
        interpreter.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    print(f"INFO: Initialized session in {init / 1e3:.6g}ms.")
    warmup = run(interpreter, given["warmup_runs"], given["warmup_min_secs"], given["max_secs"])
    times = run(interpreter, given["num_runs"], given["min_secs"], given["max_secs"])
    print(
        f"INFO: Inference timings in us: Init: {init}, First inference: {warmup[0]}, "
        f"Warmup (avg): {statistics.fmean(warmup):.6g}, "
        f"Inference (avg): {statistics.fmean(times):.6g}"
    )
    peak = 12.5 if given.get("report_peak_memory_footprint") == "true" else 0.0
    if peak:
        print(f"INFO: Overall peak memory footprint (MB) via periodic monitoring: {peak}")
    if "result_file_path" in given and MODE != "no result file":
        with open(given["result_file_path"], "wb") as file:
            file.write(proto(init, warmup, times, peak))


if __name__ == "__main__":
    main()
