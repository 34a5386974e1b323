"""Images a second of several ways to run a pruned network on this CPU without rebuilding it.

    python benchmarks/engines.py --model=MobileNet [--images=256] [--rounds=3]

`--model` is a .keras file or a name in keras.applications (random weights). Each
way runs in processes of its own, one after another in rounds, on random images:
the dense network, and one with half the channels of every group. `ready_ms` is
the time that a plan takes before its first image. The best round counts, as
disturbances only make a measurement slower.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import app, flags
from common import record

MODEL = flags.DEFINE_string("model", "MobileNet", "A .keras file, or a name in keras.applications.")
IMAGES = flags.DEFINE_integer("images", 256, "Images run for one measurement.")
ROUNDS = flags.DEFINE_integer("rounds", 3, "Processes for each way.")
WAY = flags.DEFINE_string("way", None, "Measure only this way, in this process; prints JSON.")

# TFLITE_XNNPACK_DELEGATE_FLAG_FORCE_FP16 of XNNPACK's delegate.
FORCE_FP16 = 4
BF16 = {"TF_SET_ONEDNN_FPMATH_MODE": "BF16"}


def _load():
    import keras

    import amc_tf

    if MODEL.value.endswith(".keras"):
        model = keras.models.load_model(os.path.expanduser(MODEL.value), compile=False)
    else:
        model = getattr(keras.applications, MODEL.value)(weights=None)
    graph = amc_tf.analyze(model)
    keep = {
        name: range(0, group.channels, 2) if group.channels > 1 else [0]
        for name, group in graph.groups.items()
    }
    half = amc_tf.PruningPlan({name: list(kept) for name, kept in keep.items()})
    images = np.random.default_rng(0).uniform(0, 1, (IMAGES.value, *model.input_shape[1:]))
    return model, graph, half, images.astype("float32")


def _timed(graph, half, prepare, images) -> dict:
    """Measures `prepare(plan)(images)` for the dense network and the half one."""
    import amc_tf

    result = {"share_of_macs": round(amc_tf.macs(graph, half) / amc_tf.macs(graph), 4)}
    for name, plan in (("dense", None), ("half", half)):
        start = time.perf_counter()
        run = prepare(plan)
        ready = time.perf_counter() - start
        run(images[: len(images) // 8])
        start = time.perf_counter()
        run(images)
        seconds = time.perf_counter() - start
        result[name] = round(len(images) / seconds, 1)
        result[f"{name}_ready_ms"] = round(ready * 1000, 1)
    return result


def interpreter(batch_size: int, num_threads: int, copies: int = 1) -> dict:
    """Times LiteRT's interpreter; several copies share the images, each in a Python thread."""
    from amc_tf.scoring.batch_norm_folding import fold
    from amc_tf.scoring.tflite_engine import LiteEngine

    _, graph, half, images = _load()
    folding = fold(graph)
    engine = LiteEngine(
        folding.graph, batch_size=batch_size, num_threads=num_threads, fixed=folding.fixed
    )

    def prepare(plan):
        networks = [engine.network(plan) for _ in range(copies)]

        def run(images):
            with ThreadPoolExecutor(copies) as pool:
                parts = np.array_split(images, copies)
                return list(pool.map(lambda n, x: n([x]), networks, parts))

        return run

    return _timed(graph, half, prepare, images)


def compiled_model(batch_size: int, **options) -> dict:
    """Times LiteRT's CompiledModel, whose options reach XNNPACK's flags."""
    from ai_edge_litert.compiled_model import CompiledModel
    from ai_edge_litert.options import CpuOptions, Options

    from amc_tf.scoring.batch_norm_folding import fold
    from amc_tf.scoring.tflite_engine import LiteEngine

    _, graph, half, images = _load()
    folding = fold(graph)
    engine = LiteEngine(folding.graph, batch_size=batch_size, fixed=folding.fixed)
    cpu = CpuOptions(num_threads=os.cpu_count() or 1, **options)

    def prepare(plan):
        model = CompiledModel.from_buffer(engine.file(plan), options=Options(cpu_options=cpu))
        inputs, outputs = model.create_input_buffers(0), model.create_output_buffers(0)
        units = int(np.prod(graph.network.model.output_shape[1:]))

        def run(images):
            for start in range(0, len(images) // batch_size * batch_size, batch_size):
                inputs[0].write(images[start : start + batch_size])
                model.run_by_index(0, inputs, outputs)
                outputs[0].read(batch_size * units, np.float32)

        return run

    return _timed(graph, half, prepare, images)


def traced_graph(batch_size: int) -> dict:
    """Times a TensorFlow function of the rebuilt folded model, traced anew for each plan."""
    import tensorflow as tf

    import amc_tf
    from amc_tf.scoring.batch_norm_folding import fold

    _, graph, half, images = _load()
    folded = fold(graph).graph

    def prepare(plan):
        small = amc_tf.rebuild(folded.network.model, folded, plan)
        forward = tf.function(lambda x: small(x, training=False), autograph=False)
        forward(images[:batch_size])

        def run(images):
            for start in range(0, len(images) // batch_size * batch_size, batch_size):
                forward(images[start : start + batch_size]).numpy()

        return run

    return _timed(graph, half, prepare, images)


def masked_keras(batch_size: int) -> dict:
    """Times a full-size Keras model with masked weights, which a user's own evaluate gets."""
    import amc_tf

    model, graph, half, images = _load()

    def prepare(plan):
        masked = amc_tf.mask(model, graph, plan)
        masked.predict(images[:batch_size], batch_size=batch_size, verbose=0)
        return lambda images: masked.predict(images, batch_size=batch_size, verbose=0)

    return _timed(graph, half, prepare, images)


def ways() -> dict:
    """Returns (function that measures, environment variables) by name of the way."""
    cpus = os.cpu_count() or 1
    table = {
        f"LiteRT, batch {batch}, {cpus} threads": (
            functools.partial(interpreter, batch, cpus),
            {},
        )
        for batch in (1, 4, 8, 16, 32)
    }
    table["LiteRT, batch 8, 1 thread"] = functools.partial(interpreter, 8, 1), {}
    table[f"LiteRT, batch 8, {cpus} interpreters of 1 thread"] = (
        functools.partial(interpreter, 8, 1, cpus),
        {},
    )
    table["LiteRT CompiledModel"] = functools.partial(compiled_model, 8), {}
    table["LiteRT CompiledModel, float16 forced"] = (
        functools.partial(compiled_model, 8, xnnpack_flags=FORCE_FP16),
        {},
    )
    table["LiteRT CompiledModel, YNNPACK"] = (
        functools.partial(compiled_model, 8, enable_ynnpack=True),
        {},
    )
    table["TensorFlow, folded, batch 32"] = functools.partial(traced_graph, 32), {}
    table["TensorFlow, folded, batch 32, bfloat16"] = (
        functools.partial(traced_graph, 32),
        BF16,
    )
    table["Keras, masked, batch 32"] = functools.partial(masked_keras, 32), {}
    return table


def measured(way: str, environment: dict) -> dict:
    """Measures one round of one way, in a process of its own."""
    command = [
        sys.executable,
        str(pathlib.Path(__file__)),
        *(f"--{f.name}={f.value}" for f in (MODEL, IMAGES)),
        f"--way={way}",
    ]
    run = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    lines = run.stdout.strip().splitlines()
    if run.returncode or not lines:
        lines = [line for line in run.stderr.splitlines() if "rror" in line]
        return {"failed": (lines or [f"exit status {run.returncode}"])[-1][:200]}
    return json.loads(lines[-1])


def best(rounds: list[dict]) -> dict:
    """Takes the most images a second and the least milliseconds of all rounds."""
    failed = [r for r in rounds if "failed" in r]
    if failed:
        return failed[0]
    return {k: (min if k.endswith("_ms") else max)(r[k] for r in rounds) for k in rounds[0]}


def main(argv):
    del argv
    table = ways()
    if WAY.value:
        print(json.dumps(table[WAY.value][0]()))
        return
    rounds = {name: [] for name in table}
    for _ in range(ROUNDS.value):
        for name, (_, environment) in table.items():
            rounds[name].append(measured(name, environment))
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    words = cpuinfo.read_text().split() if cpuinfo.exists() else []
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16")
    record.append(
        "engines",
        {
            "model": pathlib.Path(MODEL.value).name,
            "images": IMAGES.value,
            "rounds": ROUNDS.value,
            "cpu_flags": [f for f in wanted if f in words],
            "images_per_second": {name: best(r) for name, r in rounds.items()},
        },
    )


if __name__ == "__main__":
    app.run(main)
