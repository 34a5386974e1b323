"""Calibration data, checked and put in order before a conversion begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tflite_tools.tracing import Signature

Sample = list[np.ndarray]
"""One calibration sample: an array of batch 1 for each model input, in the order of the inputs."""


def samples_of(representative: Iterable | None, purpose: str, signature: Signature) -> list[Sample]:
    """Checks representative data and brings each sample into the order of the signature.

    Args:
        representative: an iterable of samples as `convert` takes them.
        purpose: what needs them, for error messages.
        signature: of the model.

    Raises:
        ValueError: there are none, or one does not fit the model or is not finite.
    """
    wanted = signature.describe()
    if not isinstance(representative, Iterable):
        received = "None" if representative is None else type(representative).__name__
        raise ValueError(
            f"{purpose} needs representative data, an iterable of samples ({wanted}); "
            f"received {received}."
        )
    samples = [_in_order(sample, signature) for sample in representative]
    if not samples:
        raise ValueError(
            f"representative is empty, but {purpose} needs at least one sample ({wanted}); a "
            "generator can be read only once."
        )
    for index, sample in enumerate(samples):
        shapes = [array.shape for array in sample]
        if shapes != signature.sample_shapes():
            raise ValueError(
                f"each representative sample must hold {wanted}; sample {index} has the shapes "
                f"{shapes}. Give one sample at a time, with a batch dimension of 1."
            )
        if not all(np.isfinite(a).all() for a in sample if a.dtype.kind in "fc"):
            raise ValueError(
                f"representative sample {index} holds NaN or infinity, from which no scale can be "
                "derived; remove or repair it."
            )
    return samples


def _in_order(sample: object, signature: Signature) -> Sample:
    if isinstance(sample, Mapping):
        names = list(signature.keys)
        if set(sample) != set(names):
            raise ValueError(
                f"a representative sample given as a mapping must have the keys {names}; received "
                f"{list(sample)}."
            )
        arrays = [sample[name] for name in names]
    elif isinstance(sample, (list, tuple)):
        arrays = list(sample)
    else:
        arrays = [sample]
    if len(arrays) != len(signature.inputs):
        raise ValueError(
            f"each representative sample must hold {len(signature.inputs)} arrays, one for each "
            f"input in the order of model.inputs; received {len(arrays)}."
        )
    return [
        np.asarray(array, dtype=spec.dtype.as_numpy_dtype)
        for array, spec in zip(arrays, signature.inputs, strict=True)
    ]
