"""Worker: times models on a GPU and prints a JSON object for each.

``python -m tflite_tools.time_gpu PATH...``: a ``.keras`` file is run by TensorFlow on CUDA, a
``.tflite`` file by LiteRT's GPU accelerator.

A GPU works asynchronously: a call returns when the work is submitted. TensorFlow is made to wait
for its devices while the clock runs. LiteRT waits in its benchmark mode, which is checked against
runs whose output is read.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from tflite_tools.errors import DeviceError
from tflite_tools.time_model import add_stopping_rule, random_input, repeat, time_series

# Reading copies the output to the host. If run and read together take this many times as long as
# the run alone, and this many seconds longer, the copy cannot explain it: the run did not wait.
_READ_FACTOR = 3.0
_READ_SECS = 2e-3
_READS = 10


class Runtime(Protocol):
    """One model ready to run on a GPU.

    Attributes:
        description: Name and version of the runtime.
        adapter: Name of the GPU.
    """

    description: str
    adapter: str

    def run(self) -> None:
        """Runs one inference and waits for its end."""

    def run_and_read(self) -> None:
        """Runs one inference and copies its outputs to the host."""

    def peak_memory_mb(self) -> float | None:
        """Returns the peak memory on the GPU in MB, None if the runtime does not know it."""


class TensorFlowRuntime:
    """A Keras model as a compiled TensorFlow graph of static shapes."""

    def __init__(self, path: str, kind: str = "GPU") -> None:
        """Loads the model onto the first device of a kind.

        Inputs of whole numbers are 0: they may be indices, and only 0 is certain to be valid.

        Args:
            path: A ``.keras`` file.
            kind: "GPU"; "CPU" runs the same code without one.

        Raises:
            DeviceError: If TensorFlow finds no such device.
        """
        import keras
        import tensorflow as tf

        devices = tf.config.list_physical_devices(kind)
        if not devices:
            raise DeviceError(
                f"TensorFlow {tf.__version__} finds no {kind}",
                "Install the driver and CUDA: pip install 'tensorflow[and-cuda]'.",
            )
        details = tf.config.experimental.get_device_details(devices[0])
        self._tf = tf
        self._kind = kind
        self.description = f"tensorflow {tf.__version__}"
        self.adapter = details.get("device_name", devices[0].name)
        rng = np.random.default_rng(0)
        with tf.device(f"/{kind}:0"):
            loaded = keras.models.load_model(path, compile=False)
            # This model takes a plain list, whatever structure the loaded model's inputs have.
            model = keras.Model(loaded.inputs, loaded.outputs)
            self._inputs = [
                tf.cast(rng.random((1, *t.shape[1:]), np.float32) - 0.5, t.dtype)
                for t in model.inputs
            ]
            function = tf.function(
                lambda *tensors: model(list(tensors), training=False),
                input_signature=[tf.TensorSpec(i.shape, i.dtype) for i in self._inputs],
                autograph=False,
            )
            self._function = function.get_concrete_function()

    def run(self) -> None:
        """Runs one inference and waits for every device."""
        with self._tf.device(f"/{self._kind}:0"):
            self._function(*self._inputs)
        self._tf.test.experimental.sync_devices()

    def run_and_read(self) -> None:
        """Runs one inference and copies its outputs to the host."""
        for output in self._tf.nest.flatten(self._function(*self._inputs)):
            output.numpy()

    def peak_memory_mb(self) -> float | None:
        """Returns the peak of TensorFlow's allocator on the GPU, in MB."""
        if self._kind != "GPU":
            return None
        return self._tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20


class LiteRtRuntime:
    """A ``.tflite`` file compiled for LiteRT's GPU accelerator."""

    def __init__(self, path: str, allow_software: bool = False, accelerator: str = "GPU") -> None:
        """Compiles the file.

        Args:
            path: A ``.tflite`` file.
            allow_software: Whether a Vulkan driver that runs on the CPU is accepted.
            accelerator: "GPU"; "CPU" runs the same code without one.

        Raises:
            DeviceError: If there is no GPU, or it does not take the whole network.
        """
        import ai_edge_litert
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.hardware_accelerator import HardwareAccelerator
        from ai_edge_litert.interpreter import Interpreter
        from ai_edge_litert.options import GpuOptions, Options

        self.adapter = "CPU" if accelerator == "CPU" else _hardware_adapter(allow_software)
        self.description = f"ai-edge-litert {ai_edge_litert.__version__}"
        options = Options(
            hardware_accelerators=HardwareAccelerator[accelerator],
            gpu_options=GpuOptions(benchmark_mode=True),
        )
        try:
            self._model = CompiledModel.from_file(path, options=options)
        except RuntimeError as error:
            raise DeviceError(
                f"LiteRT does not compile the model for the {accelerator}: "
                f"{str(error).splitlines()[-1]!r}",
                "Look at its messages with --debug; the adapter or an operator may not be enough.",
            ) from error
        if accelerator == "GPU" and not self._model.is_fully_accelerated():
            raise DeviceError(
                "LiteRT's GPU accelerator does not take the whole network",
                "Replace the operators that it lacks.",
            )
        self._key = next(iter(self._model.get_signature_list()))
        rng = np.random.default_rng(0)
        # The compiled model's own details lack the quantisation.
        interpreter = Interpreter(model_path=path)
        if self._key in interpreter.get_signature_list():
            details = interpreter.get_signature_runner(self._key).get_input_details()
        else:
            details = {detail["name"]: detail for detail in interpreter.get_input_details()}
        # By name: the two interfaces list inputs in different orders.
        self._inputs = {
            name: self._model.create_input_buffer_by_name(self._key, name) for name in details
        }
        for name, buffer in self._inputs.items():
            _write(buffer, name, random_input(details[name], rng))
        made = self._model.get_output_tensor_details(self._key)
        self._outputs = {
            name: self._model.create_output_buffer_by_name(self._key, name) for name in made
        }
        self._read = {
            name: (int(np.prod(detail["shape"])), np.dtype(detail["dtype"]).type)
            for name, detail in made.items()
        }

    def run(self) -> None:
        """Runs one inference and, in benchmark mode, waits for its end."""
        self._model.run_by_name(self._key, self._inputs, self._outputs)

    def run_and_read(self) -> None:
        """Runs one inference and copies its outputs to the host."""
        self.run()
        for name, (size, dtype) in self._read.items():
            self._outputs[name].read(size, dtype)

    def peak_memory_mb(self) -> float | None:
        """Returns None: LiteRT does not report it."""
        return None


def _write(buffer: Any, name: str, array: np.ndarray) -> None:
    """Fills an input, which itself takes other types and fewer values without a word."""
    wanted = buffer.get_tensor_details()
    if np.dtype(wanted["dtype"]) != array.dtype or tuple(wanted["shape"]) != array.shape:
        raise DeviceError(
            f"the compiled model's input {name!r} is {wanted['dtype']} of shape "
            f"{tuple(wanted['shape'])}, the file's {array.dtype} of {array.shape}",
            "Convert the model with fixed sizes; the time of other inputs is not that of the file.",
        )
    buffer.write(array)


def time_runtime(
    runtime: Runtime,
    options: argparse.Namespace,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, str | int | float | None]:
    """Times a model that is ready to run.

    Args:
        runtime: The model.
        options: The flags of `add_stopping_rule`.
        clock: Function that returns the current time in seconds.

    Returns:
        The JSON object that the worker prints.

    Raises:
        DeviceError: If runs end long before their outputs are there.
    """
    durations = time_series(runtime.run, options, clock)
    reads = repeat(
        runtime.run_and_read, num_runs=_READS, min_secs=0, max_secs=options.max_secs, clock=clock
    )
    # The first read may set up the copy.
    run_secs, read_secs = statistics.median(durations), statistics.median(reads[1:] or reads)
    if read_secs > _READ_FACTOR * run_secs and read_secs - run_secs > _READ_SECS:
        raise DeviceError(
            f"runs end after {1e3 * run_secs:.3g} ms, but their outputs are there after "
            f"{1e3 * read_secs:.3g} ms, so {runtime.description} does not wait for the GPU",
            "Use another version of the runtime; the time measured is that of submitting only.",
        )
    return {
        "median_ms": 1e3 * run_secs,
        "with_read_ms": 1e3 * read_secs,
        "runs": len(durations),
        "peak_memory_mb": runtime.peak_memory_mb(),
        "runtime": runtime.description,
        "adapter": runtime.adapter,
    }


def vulkan_adapters(library: str = "libvulkan.so.1") -> list[tuple[str, bool]]:
    """Lists the Vulkan devices of this machine: name, and whether it runs on the CPU.

    https://registry.khronos.org/vulkan/specs/latest/man/html/VkPhysicalDeviceProperties.html

    Args:
        library: The Vulkan loader.

    Returns:
        One pair for each device.

    Raises:
        DeviceError: If there is no Vulkan.
    """
    try:
        vulkan = ctypes.CDLL(library)
    except OSError:
        raise DeviceError(
            f"LiteRT's GPU accelerator needs Vulkan, but {library} cannot be loaded",
            "Install the Vulkan loader (Debian: libvulkan1) and the GPU's driver.",
        ) from None

    class InstanceCreateInfo(ctypes.Structure):
        _fields_ = [
            ("sType", ctypes.c_int),
            ("pNext", ctypes.c_void_p),
            ("flags", ctypes.c_uint32),
            ("pApplicationInfo", ctypes.c_void_p),
            ("enabledLayerCount", ctypes.c_uint32),
            ("ppEnabledLayerNames", ctypes.c_void_p),
            ("enabledExtensionCount", ctypes.c_uint32),
            ("ppEnabledExtensionNames", ctypes.c_void_p),
        ]

    class Properties(ctypes.Structure):
        _fields_ = [
            ("versions_and_ids", ctypes.c_uint32 * 4),
            ("deviceType", ctypes.c_uint32),
            ("deviceName", ctypes.c_char * 256),
            ("rest", ctypes.c_uint8 * 1024),  # cache id and limits, less than this
        ]

    instance = ctypes.c_void_p()
    # VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO is 1.
    if vulkan.vkCreateInstance(
        ctypes.byref(InstanceCreateInfo(sType=1)), None, ctypes.byref(instance)
    ):
        return []
    try:
        count = ctypes.c_uint32()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), None)
        handles = (ctypes.c_void_p * count.value)()
        vulkan.vkEnumeratePhysicalDevices(instance, ctypes.byref(count), handles)
        adapters = []
        for handle in handles[: count.value]:
            properties = Properties()
            vulkan.vkGetPhysicalDeviceProperties(ctypes.c_void_p(handle), ctypes.byref(properties))
            # VK_PHYSICAL_DEVICE_TYPE_CPU is 4.
            adapters.append((properties.deviceName.decode(), properties.deviceType == 4))
        return adapters
    finally:
        vulkan.vkDestroyInstance(instance, None)


def _hardware_adapter(allow_software: bool) -> str:
    adapters = vulkan_adapters()
    usable = [name for name, software in adapters if allow_software or not software]
    if not usable:
        found = ", ".join(name for name, _ in adapters) or "none"
        raise DeviceError(
            f"Vulkan finds no GPU (adapters on the CPU: {found})",
            "Install the GPU's driver, or pass allow_software=True to time the CPU's adapter.",
        )
    return usable[0]


def _open(path: str, options: argparse.Namespace) -> Runtime:
    if Path(path).suffix == ".keras":
        return TensorFlowRuntime(path)
    return LiteRtRuntime(path, options.allow_software)


def main(arguments: list[str] | None = None) -> None:
    """Times the files named on the command line and prints one JSON object for each."""
    parser = argparse.ArgumentParser(prog="python -m tflite_tools.time_gpu", description=__doc__)
    parser.add_argument("paths", nargs="+", help="the .keras or .tflite files")
    parser.add_argument("--allow_software", action="store_true")
    add_stopping_rule(parser)
    options = parser.parse_args(arguments)
    for path in options.paths:
        try:
            print(json.dumps(time_runtime(_open(path, options), options)), flush=True)
        except DeviceError as error:
            print(json.dumps({"found": error.found, "remedy": error.remedy}), flush=True)
            return


if __name__ == "__main__":
    main()
