"""Views follow from their arguments, and are views of the images."""

import numpy as np
import pytest

from amc_tf.pruning.refit.runner import Images
from amc_tf.recovery.views import distorted, steps_of, views

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 255, (10, 12, 16, 3), dtype=np.uint8)


def _epoch(epoch, arrays=(PICTURES,), seed=0, size=4, **more):
    images = Images(list(arrays), ["float32"] * len(arrays))
    found = list(views(images, size, seed, epoch, **more))
    assert len(found) == steps_of(images, size) == 260 // size
    return found


def test_an_epoch_is_the_same_whenever_it_is_drawn():
    first, again = _epoch(3), _epoch(3)
    assert first[0][0].shape == (4, 12, 16, 3)
    for (a,), (b,) in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    for other in (_epoch(4), _epoch(3, seed=1)):
        assert np.abs(first[0][0] - other[0][0]).max() > 1


def test_views_stay_within_the_values_of_the_images():
    for (x,) in _epoch(0) + _epoch(1):
        assert x.dtype == np.float32 and x.min() >= 0 and x.max() <= 255


def test_a_flat_image_gives_flat_views_and_half_of_the_others_are_mirrored():
    flat = np.full((5, 9, 9, 1), 7, np.float32)
    np.testing.assert_allclose(distorted([flat], np.random.default_rng(0))[0], 7, rtol=1e-6)
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32)[:, None], (400, 32, 1, 1))
    (turned,) = distorted([ramp], np.random.default_rng(0))
    falls = (turned[:, :, 0] > turned[:, :, -1]).mean()
    assert falls == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "array",
    [
        np.ones((4, 6), np.float32),
        np.ones((4, 32, 32, 3), np.int32),
        np.ones((4, 20, 20, 64), np.float32),
        np.ones((4, 4, 4, 3), np.float32),
    ],
)
def test_what_is_no_image_is_left_alone(array):
    assert distorted([array], np.random.default_rng(0))[0] is array


def test_inputs_of_one_sample_stay_together():
    numbers = np.arange(10, dtype=np.float32)[:, None]
    for x, y in _epoch(0, (numbers, 2 * numbers)):
        np.testing.assert_array_equal(y, 2 * x)


def test_images_of_one_sample_are_distorted_alike():
    for x, y in _epoch(0, (PICTURES, PICTURES.astype("float32") / 2)):
        np.testing.assert_allclose(x, 2 * y, atol=1e-3)


def test_nothing_is_mixed_where_a_sample_has_other_inputs():
    flat = np.arange(10, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 9, 9, 1), "float32")
    for image, number in _epoch(0, (flat, np.arange(10, dtype=np.float32)[:, None])):
        np.testing.assert_allclose(image[:, 0, 0], number, rtol=1e-5)
    mixed = np.concatenate([image[:, 0, 0, 0] for (image,) in _epoch(0, (flat,))])
    assert (np.abs(mixed - np.rint(mixed)) > 1e-3).any()


def test_images_are_left_as_they_are_if_that_is_asked_for():
    seen = np.concatenate([x for (x,) in _epoch(0, distort=False)])
    assert {x.tobytes() for x in seen} == {x.astype("float32").tobytes() for x in PICTURES}
