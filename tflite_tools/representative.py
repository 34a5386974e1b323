"""Calibration data: checked, and put in the order of the inputs, before a conversion begins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from tflite_tools.tracing import Signature

Sample = list[np.ndarray]
"""One calibration sample: an array of batch 1 for each model input, in the order of the inputs."""


def samples_of(representative: Iterable | None, purpose: str, signature: Signature) -> list[Sample]:
    """Checks representative data and puts each sample in the order of the signature.

    Args:
        representative: an iterable of samples as `convert` takes them.
        purpose: what needs the data, for error messages.
        signature: signature of the model.

    Raises:
        ValueError: there are no samples; or a sample does not fit the model, is not finite or does
            not hold numbers; or all samples hold the same single value.
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
    floats = [k for k, spec in enumerate(signature.inputs) if spec.dtype.is_floating]
    if floats and all(_is_constant([sample[k] for sample in samples]) for k in floats):
        raise ValueError(
            f"representative holds the value {samples[0][floats[0]].flat[0]:g} and no other, from "
            "which no range can be derived; give samples like those the model will see."
        )
    return samples


def _is_constant(arrays: list[np.ndarray]) -> bool:
    first = arrays[0].flat[0]
    return all((array == first).all() for array in arrays)


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
        _cast(array, spec.dtype.as_numpy_dtype)
        for array, spec in zip(arrays, signature.inputs, strict=True)
    ]


def _cast(array: object, dtype: np.dtype) -> np.ndarray:
    try:
        found = np.asarray(array)
    except ValueError:  # lists of unequal lengths
        found = np.asarray(array, object)
    if found.dtype.kind in "OSUcMm":
        raise ValueError(
            f"each representative sample must hold numbers; received an array of {found.dtype}. "
            f"Convert it to {np.dtype(dtype).name}."
        )
    return found.astype(dtype)
