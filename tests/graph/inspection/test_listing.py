"""The printed channel graph: shares by hand, and the listings of well-known networks."""

import golden
import keras
import pytest
import tensorflow as tf
import zoo
from keras import layers as kl
from places import DATA

import amc_tf
from amc_tf.graph.inspection import picture, to_dot, to_html
from amc_tf.graph.inspection.listing import few, table

GOLDEN = DATA / "golden"


class Unheard(kl.Layer):
    """A layer with seven parameters that no table lists."""

    def build(self, shape):
        self.add_weight(shape=(7,), name="w")

    def call(self, x):
        return tf.identity(x)  # which takes no symbolic tensor


def test_shares_by_hand():
    x = inputs = keras.Input((4, 4, 3))
    x = kl.Conv2D(2, 1, name="a")(x)  # 16 * 3 * 2 = 96 MACs, 6 + 2 parameters
    x = kl.Conv2D(5, 1, name="b")(x)  # 16 * 2 * 5 = 160 MACs, 10 + 5 parameters
    x = Unheard(name="c")(x)  # no MACs, 7 parameters, which are part of the whole
    x = kl.Dense(2, name="d")(kl.GlobalAveragePooling2D()(x))  # 10 MACs, 10 + 2 parameters
    graph = amc_tf.analyze(keras.Model(inputs, x, name="net"))
    content = table(graph)
    # The group of "a" changes all of "a" and the kernel of "b", whose bias stays: 256 of 266
    # MACs, 6 + 2 + 10 of 42 parameters.
    (row,) = content.rows
    assert (row.name, row.channels, row.macs, row.params) == ("a", 2, "96.2%", "42.9%")
    assert (row.producers, row.consumers) == (("a",), ("b",))
    assert content.head == (
        "net: 1 groups, 2 prunable channels, 266 MACs (96.2% prunable), "
        "42 parameters (42.9% prunable)"
    )
    assert content.refused[0][:2] == ("c", "Unheard")
    assert (("input",), 3, "model input") in content.frozen
    assert str(graph) == "net: 1 groups, 2 prunable channels"
    text = amc_tf.describe(graph)
    assert "  a" in text and "c (Unheard)" in text


def test_shares_of_neighbours_overlap_and_are_counted_once_in_the_whole():
    x = inputs = keras.Input((1, 1, 1))
    for name in "abc":
        x = kl.Conv2D(10, 1, use_bias=False, name=name)(x)
    x = kl.Conv2D(1, 1, use_bias=False, name="d")(x)
    content = table(amc_tf.analyze(keras.Model(inputs, x)))
    # Kernels of 10, 100, 100 and 10 elements; each group changes two or three of the four.
    assert [row.params for row in content.rows] == ["50.0%", "90.9%", "50.0%"]
    assert [row.macs for row in content.rows] == ["50.0%", "90.9%", "50.0%"]
    assert "220 MACs (100.0% prunable), 220 parameters (100.0% prunable)" in content.head


def test_what_stays_and_what_is_not_counted_is_told():
    x = inputs = keras.Input((4, 4, 3))
    x = kl.Conv2D(2, 1, name="a")(x)  # 16 * 3 * 2 = 96 MACs
    x = kl.Conv2D(5, 1, name="b")(x)  # 16 * 2 * 5 = 160
    x = zoo.Unlisted(4, name="c")(x)  # 16 * 5 * 4 = 320, which stay
    graph = amc_tf.analyze(keras.Model(inputs, x, name="net"))
    content = table(graph)
    assert "net: 1 groups, 2 prunable channels, 576 MACs (44.4% prunable)" in content.head
    assert content.fixed == (("c", 320),) and not content.uncounted
    assert "MACs that stay\n  c: 320" in amc_tf.describe(graph)

    x = kl.Lambda(lambda x: tf.math.real(tf.signal.fft(tf.cast(x, "complex64"))), name="d")(x)
    graph = amc_tf.analyze(keras.Model(inputs, kl.Dense(2, name="e")(x), name="net"))  # 16 * 4 * 2
    content = table(graph)
    assert "704 MACs counted (36.4% of these prunable) beside one operation that" in content.head
    assert content.uncounted == (("d", "Lambda", "FFT"),)
    told = "d (Lambda): FFT"
    assert f"not counted\n  {told}\nMACs that stay\n  c: 320\n  e: 128" in amc_tf.describe(graph)
    drawn = picture(graph)
    assert told in to_html(drawn) and content.head in to_html(drawn)
    assert "d\\nLambda\\n4 x 4 x 4\\nMACs not counted" in to_dot(drawn)


def test_nothing_is_100_percent_prunable_beside_work_that_is_not_counted():
    x = inputs = keras.Input((4,))
    x = kl.Dense(3)(kl.Dense(3)(x))
    x = kl.Lambda(lambda x: tf.math.real(tf.signal.fft(tf.cast(x, "complex64"))))(x)
    (head, *_) = amc_tf.describe(amc_tf.analyze(keras.Model(inputs, x))).splitlines()
    assert "MACs counted (100.0% of these prunable) beside one operation that cannot be" in head


def test_a_little_is_not_nothing_and_almost_all_is_not_all():
    x = inputs = keras.Input((1, 1, 1))
    x = kl.Conv2D(1, 1, use_bias=False, name="small")(x)  # 1 parameter
    x = kl.Conv2D(1, 1, use_bias=False, name="next")(x)  # 1 parameter
    x = Unheard()(x)
    x = kl.Conv2D(9999, 1, use_bias=False, name="large")(x)
    x = kl.Conv2D(1, 1, use_bias=False, name="last")(x)
    content = table(amc_tf.analyze(keras.Model(inputs, x)))
    assert [row.params for row in content.rows] == ["<0.1%", ">99.9%"]
    assert "(>99.9% prunable)" in content.head


def test_long_lists_of_names():
    assert few(()) == "-"
    assert few(("a", "b")) == "a, b"
    assert few(("a", "b", "c", "d")) == "a, b and 2 more"
    assert few(("a", "b", "c"), None) == "a, b, c"


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50", "EfficientNetB0", "DenseNet121"])
def test_golden(name):
    keras.utils.clear_session()  # automatic layer names start from one, whatever ran before
    model = getattr(keras.applications, name)(weights=None)
    text = amc_tf.describe(amc_tf.analyze(model), names=None) + "\n"
    golden.compare(GOLDEN / f"{name}.txt", text)
