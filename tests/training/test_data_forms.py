"""Data in every form that Keras takes: checked, trained on, scored and sampled alike."""

import itertools

import keras
import marks
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing.image import ImageDataGenerator

import amc_tf
from amc_tf.scoring.tflite_scorer import LiteScorer
from amc_tf.training.data import in_batches, inputs_of
from amc_tf.training.fit_arguments import FitArguments

COUNT = 90
RNG = np.random.default_rng(5)
X = RNG.normal(0, 1, (COUNT, 6)).astype("float32")
Y = (X @ RNG.normal(size=(6, 3))).argmax(axis=1).astype("int32")
W = RNG.uniform(0, 3, COUNT).astype("float32")
BATCH = 20  # the last batch is smaller


class Indexed(keras.utils.PyDataset):
    """Batches of arrays by index."""

    def __init__(self, *parts, endless=False):
        super().__init__()
        self.parts = parts
        self.endless = endless

    @property
    def num_batches(self):
        return None if self.endless else -(-COUNT // BATCH)

    def __getitem__(self, index):
        start = BATCH * (index % -(-COUNT // BATCH))
        return tuple(part[start : start + BATCH] for part in self.parts)


class AgainAndAgain:
    """An iterable without a length, such as a torch DataLoader of an iterable."""

    def __init__(self, *parts):
        self.parts = parts

    def __iter__(self):
        return (
            [part[start : start + BATCH] for part in self.parts] for start in range(0, COUNT, BATCH)
        )


def known(*parts):
    return tf.data.Dataset.from_tensor_slices(parts).batch(BATCH)


def unknown(*parts):
    found = known(*parts).filter(lambda *_: True)
    assert found.cardinality() == tf.data.UNKNOWN_CARDINALITY
    return found


def tensors(*parts):
    return tuple(map(tf.constant, parts))


def frames(x, y, *weight):
    pandas = pytest.importorskip("pandas")
    return pandas.DataFrame(x), pandas.Series(y), *map(pandas.Series, weight)


def sparse(x, *rest):
    scipy_sparse = pytest.importorskip("scipy.sparse")
    return scipy_sparse.csr_matrix(x), *rest


def loader(*parts):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(*map(torch.from_numpy, parts))
    return torch.utils.data.DataLoader(data, batch_size=BATCH)


FORMS = {
    "arrays": lambda *parts: parts,
    "tensors": tensors,
    "lists of arrays": lambda x, y, *weight: ([x], y.tolist(), *weight),
    "pandas": frames,
    "sparse": sparse,
    "dataset": known,
    "dataset of unknown length": unknown,
    "PyDataset": Indexed,
    "list of batches": lambda *parts: [b for b in AgainAndAgain(*parts)],
    "iterable": AgainAndAgain,
    "DataLoader": loader,
}


def model():
    keras.utils.set_random_seed(3)
    inputs = keras.Input((6,), name="features")
    hidden = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name="logits")(hidden))


def compile_model(net):
    net.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
    )


def task(train, validation=None, **changes):
    validation = train if validation is None else validation
    return amc_tf.Task(
        train, validation, **{"compile": compile_model, "batch_size": BATCH, **changes}
    )


@pytest.fixture(scope="module")
def net():
    made = model()
    compile_model(made)
    made.fit(X, Y, epochs=3, verbose=0)
    return made


PAIRS = ["arrays", "dataset", "PyDataset"]  # others differ only by what is tested with weights
BOTH = [*((form, True) for form in FORMS), *((form, False) for form in PAIRS)]


@pytest.mark.parametrize("form, weighted", marks.slow_but(BOTH, BOTH[: len(FORMS)]))
def test_every_form_serves_every_use(net, form, weighted):
    parts = (X, Y, W) if weighted else (X, Y)
    of_form = task(FORMS[form](*parts), calibration_size=COUNT)
    of_form.check(net)
    # The number that Keras computes of the arrays, and NumPy by hand.
    right = net.predict(X, verbose=0).argmax(axis=1) == Y
    weight = W if weighted else None
    compile_model(net)  # else the traces for labels of one axis and of two are merged, and fail
    expected = net.evaluate(X, Y, sample_weight=weight, verbose=0, return_dict=True)["accuracy"]
    assert np.average(right, weights=weight) == pytest.approx(expected, rel=1e-5)
    compile_model(net)
    assert of_form.score(net, of_form.validation) == pytest.approx(expected, rel=1e-5)
    lite = LiteScorer(amc_tf.analyze(net), of_form, None)
    for _ in range(2):
        assert lite(None) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(of_form.calibration_inputs(net)[0], X, rtol=1e-6)
    few = of_form.sample(of_form.validation, 30)
    assert len(few) == len(parts)
    (drawn,) = keras.tree.flatten(few[0])
    rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in drawn]
    assert len(set(rows)) == 30 and rows == sorted(rows)
    np.testing.assert_array_equal(np.reshape(few[1], -1), Y[rows])


@pytest.mark.parametrize("form, weighted", BOTH)
def test_the_default_fit_trains_on_every_form(form, weighted):
    """One batch of gradient descent, whose steps do not depend on the order of samples."""
    parts = (X[:BATCH], Y[:BATCH], W[:BATCH]) if weighted else (X[:BATCH], Y[:BATCH])

    def sgd(net):
        net.compile(
            keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        )

    expected = model()
    sgd(expected)
    for _ in range(2):
        expected.train_on_batch(*parts)
    data = FORMS[form](*parts)
    if form == "PyDataset":
        data = [data[0]]  # of the other tests' length
    if form in ("list of batches", "iterable"):
        data = [parts]
    found = model()
    sgd(found)
    task(data, epochs=2).train_dense(found)
    for a, b in zip(found.weights, expected.weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_large_arrays_are_trained_on_in_an_order_of_their_own(monkeypatch):
    monkeypatch.setattr("amc_tf.training.by_keras._KERAS_COPIES", 0)
    seen = []

    class Recorder(keras.Model):
        def train_step(self, data):
            tf.py_function(lambda y: seen.append(y.numpy()), [data[1]], [])
            return super().train_step(data)

    def labels():
        seen.clear()
        keras.utils.set_random_seed(1)
        base = model()
        recorder = Recorder(base.inputs, base.outputs)
        recorder.compile("sgd", "mse")
        task((X, np.arange(COUNT, dtype="float32")[:, None]), epochs=2).train_dense(recorder)
        return np.concatenate(seen)[:, 0]

    first = labels()
    epochs = first[:COUNT], first[COUNT:]
    for epoch in epochs:
        assert sorted(epoch) == list(range(COUNT))
        assert not np.array_equal(epoch, np.sort(epoch))
    assert not np.array_equal(*epochs)
    np.testing.assert_array_equal(labels(), first)


# --- structures ----------------------------------------------------------------------------------


def two_heads():
    keras.utils.set_random_seed(4)
    a, b = keras.Input((6,), name="left"), keras.Input((1,), name="right")
    hidden = keras.layers.Dense(8, activation="relu")(keras.layers.Concatenate()([a, b]))
    heads = {
        "cls": keras.layers.Dense(3, activation="softmax", name="cls")(hidden),
        "reg": keras.layers.Dense(1, name="reg")(hidden),
    }
    net = keras.Model({"left": a, "right": b}, heads)
    compile_heads(net)
    return net


def compile_heads(net):
    net.compile(
        "sgd",
        {"cls": "sparse_categorical_crossentropy", "reg": "mse"},
        metrics={"cls": ["accuracy"]},
        weighted_metrics={"reg": ["mae"]},
    )


DICTS = {"left": X, "right": X[:, 0]}, {"cls": Y, "reg": X[:, :1]}


@pytest.mark.parametrize(
    "form, weighted", [("arrays", True), ("dataset", True), ("list of batches", False)]
)
@pytest.mark.filterwarnings("ignore:The structure of `inputs`")
def test_dicts_of_inputs_and_labels(form, weighted):
    net = two_heads()
    weights = ({"cls": W, "reg": W},) if weighted else ()
    data = (*DICTS, *weights)
    expected = net.evaluate(
        *DICTS, sample_weight=weights[0] if weights else None, verbose=0, return_dict=True
    )
    if form == "dataset":
        data = tf.data.Dataset.from_tensor_slices(data).batch(BATCH)
    if form == "list of batches":
        data = list(tf.data.Dataset.from_tensor_slices(data).batch(BATCH))
    of_form = amc_tf.Task(data, data, compile=compile_heads, metric="cls_accuracy")
    of_form.check(net)
    assert of_form.score(net, data) == pytest.approx(expected["cls_accuracy"], rel=1e-5)
    right = [np.asarray(a).reshape(COUNT, -1) for a in of_form.sample_inputs(data, net, COUNT)]
    np.testing.assert_array_equal(right[0], X)
    np.testing.assert_array_equal(right[1], X[:, :1])
    of_form.train_dense(net)


def test_one_weight_for_several_outputs_counts_for_each(monkeypatch):
    net = two_heads()
    expected = net.evaluate(*DICTS, sample_weight=W, batch_size=128, verbose=0, return_dict=True)
    measured = amc_tf.Task((*DICTS, W), (*DICTS, W), metric="reg_mae").prepared((*DICTS, W))
    found = net.evaluate(measured, verbose=0, return_dict=True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert (
        abs(expected["reg_mae"] - net.evaluate(*DICTS, verbose=0, return_dict=True)["reg_mae"])
        > 1e-3
    )


def test_labels_of_each_output_are_checked():
    net = two_heads()
    wrong = DICTS[0], {**DICTS[1], "cls": Y + 1}
    with pytest.raises(amc_tf.AmcError, match="validation labels range from 1 to 3.*3 outputs"):
        amc_tf.Task(DICTS, wrong, compile=compile_heads, metric="cls_accuracy").check(net)
    short = DICTS[0], {**DICTS[1], "cls": Y[:-2]}
    with pytest.raises(amc_tf.AmcError, match="90 inputs but 88 labels"):
        amc_tf.Task(DICTS, short, compile=compile_heads, metric="cls_accuracy").check(net)


def test_inputs_get_the_axis_that_keras_gives_them(net):
    one, two = inputs_of(DICTS[0], two_heads())
    assert one.shape == (COUNT, 6) and two.shape == (COUNT, 1)
    assert inputs_of(X[..., None], net)[0].shape == (COUNT, 6)


# --- calibration ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form", ["arrays", "tensors", "dataset", "PyDataset", "list of batches", "pandas", "DataLoader"]
)
@pytest.mark.parametrize("labelled", [False, True], ids=["inputs", "pairs"])
def test_calibration_takes_every_form(net, form, labelled):
    data = FORMS[form](X, Y)
    if not labelled:
        if form in ("arrays", "tensors", "pandas"):
            data = data[0]
        elif form == "dataset":
            data = data.map(lambda x, y: x)
        elif form == "DataLoader":
            data = FORMS[form](X)
        else:
            pytest.skip("a batch is a pair there")
    of_form = task((X, Y), calibration=data)
    of_form.check(net)
    (found,) = of_form.calibration_inputs(net)
    np.testing.assert_allclose(found, X, rtol=1e-6)


def test_calibration_of_several_inputs():
    net = two_heads()
    for data in (
        [X, X[:, :1]],
        (X, X[:, :1]),
        DICTS[0],
        DICTS,
        tf.data.Dataset.from_tensor_slices(DICTS[0]).batch(7),
        tf.data.Dataset.from_tensor_slices(DICTS).batch(7),
        tf.data.Dataset.from_tensor_slices((X, X[:, :1])).batch(7),
    ):
        one, two = amc_tf.Task(DICTS, DICTS, calibration=data).calibration_inputs(net)
        np.testing.assert_array_equal(one, X)
        np.testing.assert_array_equal(two, X[:, :1])


@pytest.mark.parametrize("form", ["dataset", "dataset of unknown length", "PyDataset", "iterable"])
def test_samples_of_sorted_data_are_drawn_over_all_of_it(net, form, caplog):
    order = np.argsort(Y, kind="stable")
    caplog.set_level("DEBUG", logger="amc_tf")
    sorted_task = task(FORMS[form](X[order], Y[order]), calibration_size=45)
    (found,) = sorted_task.calibration_inputs(net)
    assert "45 of 90 training samples" in caplog.text
    np.testing.assert_array_equal(found, sorted_task.calibration_inputs(net)[0])
    _, labels = sorted_task.sample(sorted_task.train, 45)
    # A class of n among 90 gives 45 draws n / 2 of its samples, with a standard deviation of
    # sqrt(n * (90 - n) / 4 / 89), at most 2.4.
    np.testing.assert_allclose(
        np.bincount(np.reshape(labels, -1), minlength=3), np.bincount(Y) / 2, atol=4 * 2.4
    )


def test_the_draw_is_uniform_and_does_not_depend_on_batches(net):
    x = np.arange(2000, dtype="float32")[:, None]
    data = tf.data.Dataset.from_tensor_slices((x, x))
    whole = task((x, x))
    first, _ = whole.sample(data.batch(7), 400)
    second, _ = whole.sample(data.batch(300), 400)
    np.testing.assert_array_equal(first, second)
    # The mean of 400 of 0..1999 without replacement: 999.5, sd 577 / 20 * sqrt(0.8) = 25.8.
    assert abs(first.mean() - 999.5) < 4 * 25.8
    tenths = np.bincount((first[:, 0] // 200).astype(int), minlength=10)
    assert tenths.min() > 40 - 4 * 6 and tenths.max() < 40 + 4 * 6


# --- endless data, and data that is read once ----------------------------------------------------


def endless_generator():
    return tf.data.Dataset.from_generator(
        lambda: map(tuple, itertools.cycle(AgainAndAgain(X, Y))),
        output_signature=(tf.TensorSpec((None, 6)), tf.TensorSpec((None,), tf.int32)),
    )


class Cycle:
    def __iter__(self):
        return itertools.cycle(AgainAndAgain(X, Y))


ENDLESS = {
    "repeat": lambda: known(X, Y).repeat(),
    "generator": endless_generator,
    "PyDataset": lambda: Indexed(X, Y, endless=True),
    "iterable": Cycle,
}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("form", ENDLESS)
def test_endless_data_is_refused_in_a_sentence(net, form, split, monkeypatch):
    monkeypatch.setattr("amc_tf.training.forms.MOST_UNCOUNTED", 5000)
    data = {"train": (X, Y), "validation": (X, Y), "test": (X, Y), split: ENDLESS[form]()}
    with pytest.raises(amc_tf.AmcError, match=rf"{split} data .*without (an )?end.*{split}_steps="):
        task(**data).check(net)


@pytest.mark.parametrize("form", ENDLESS)
def test_steps_end_endless_data(net, form, monkeypatch):
    monkeypatch.setattr("amc_tf.training.forms.MOST_UNCOUNTED", 5000)
    endless = ENDLESS[form]()
    of_form = task(
        endless,
        endless,
        test=endless,
        train_steps=9,  # the last four batches of 20 are the first again
        validation_steps=3,
        test_steps=2,
        epochs=2,
        calibration_size=1000,
    )
    of_form.check(net)
    right = net.predict(X, verbose=0).argmax(axis=1) == Y
    for split, count in (("validation", 60), ("test", 40)):
        expected = right[:count].mean()
        assert of_form.score(net, getattr(of_form, split)) == pytest.approx(expected)
        assert sum(len(y) for _, y in in_batches(split, getattr(of_form, split))) == count
    assert LiteScorer(amc_tf.analyze(net), of_form, None)(None) == pytest.approx(right[:60].mean())
    assert len(of_form.calibration_inputs(net)[0]) == 90 + 80
    trained = model()
    compile_model(trained)
    of_form.train_dense(trained)
    assert trained.optimizer.iterations == 2 * 9
    copied = amc_tf.Task(**{**vars(of_form), "calibration": X})  # as dataclasses.replace does
    assert copied.score(net, copied.validation) == pytest.approx(right[:60].mean())


def test_steps_of_arrays_are_their_first_batches(net):
    of_arrays = task((X, Y), validation_steps=2, train_steps=3)
    right = net.predict(X, verbose=0).argmax(axis=1) == Y
    assert of_arrays.score(net, of_arrays.validation) == pytest.approx(right[:40].mean())
    assert of_arrays.validation[0].base is not None  # a view
    with pytest.raises(amc_tf.AmcError, match="test_steps must be a whole number from 1"):
        task((X, Y), test_steps=0)


def test_the_log_tells_of_data_that_goes_on(net, monkeypatch, caplog):
    monkeypatch.setattr("amc_tf.training.forms.MOST_UNCOUNTED", 2000)
    monkeypatch.setattr("amc_tf.training.forms._PATIENCE", 1e-4)
    with pytest.raises(amc_tf.AmcError, match="more than 2,000 samples without an end"):
        task((X, Y), validation=endless_generator()).check(net)
    assert "samples read so far; if it does not end by itself, give the number" in caplog.text


def test_image_generators_of_keras_end_where_their_length_says():
    """Iterating over one never ends; Keras reads it by index."""
    x, y = X[:50].reshape(50, 3, 2, 1), Y[:50]
    net = keras.Sequential([keras.Input((3, 2, 1)), keras.layers.Flatten(), keras.layers.Dense(3)])
    compile_model(net)
    flow = ImageDataGenerator().flow(x, y, batch_size=20, shuffle=False)
    of_flow = task(flow, flow, test=flow)
    of_flow.check(net)
    expected = (net.predict(x, verbose=0).argmax(axis=1) == y).mean()
    assert of_flow.score(net, flow) == pytest.approx(expected)
    arguments = FitArguments((flow,), {"validation_data": flow})
    assert sum(len(y) for _, y in in_batches("validation", arguments.validation)) == 50
    of_flow.train_dense(net)
    assert net.optimizer.iterations == 3


@pytest.mark.parametrize("split", ["train", "validation", "test", "calibration"])
@pytest.mark.parametrize(
    "once", [lambda: (b for b in AgainAndAgain(X, Y)), lambda: iter(known(X, Y))]
)
def test_what_can_be_read_once_is_refused_with_the_remedy(net, once, split):
    data = {"train": (X, Y), "validation": (X, Y), split: once()}
    with pytest.raises(amc_tf.AmcError, match=f"{split} data.*once.*from_generator.*PyDataset"):
        task(**data).check(net)


# --- values --------------------------------------------------------------------------------------


def _bad(value, row=77):
    x = X.copy()
    x[row, 2] = value
    return x


@pytest.mark.parametrize("form", ["arrays", "dataset", "PyDataset"])
@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    "value, message",
    [
        (np.nan, "sample 77 holds values that are not finite in its input 'features'"),
        (-np.inf, "sample 77 holds values that are not finite in its input 'features'"),
        (1e25, r"sample 77 holds 1e\+25 in the input 'features'.*float32"),
        (-1e15, r"sample 77 holds 1e\+15"),
    ],
)
def test_a_bad_value_in_any_batch_is_named(net, form, split, value, message):
    data = {"train": (X, Y), "validation": (X, Y), "test": (X, Y)}
    data[split] = FORMS[form](_bad(value), Y)
    with pytest.raises(amc_tf.AmcError, match=f"{split} data: {message}"):
        task(**data, batch_size=5).check(net)


@pytest.mark.parametrize("form", ["arrays", "dataset"])
@pytest.mark.parametrize("value", [np.nan, 1e25])
def test_a_bad_value_of_the_calibration_is_named(net, form, value):
    data = _bad(value) if form == "arrays" else FORMS[form](_bad(value), Y)
    with pytest.raises(amc_tf.AmcError, match="calibration data: sample 77"):
        task((X, Y), calibration=data).check(net)


def test_large_features_are_no_error(net):
    """Unscaled features, a column of money, most samples zero."""
    x = X.copy()
    x[:, 0] = 1e9
    x[3, 1] = 1e9
    task((x, Y)).check(net)
    x = np.zeros_like(X)
    x[3] = 1e9
    task((x, Y)).check(net)
    task((X * 1e8, Y)).check(net)


def test_labels_and_weights_must_be_finite():
    targets = X[:, :1].copy()
    targets[80] = np.nan
    inputs = keras.Input((6,))
    net = keras.Model(inputs, keras.layers.Dense(1, name="dose")(inputs))
    for loss, refused in (("mse", True), (lambda y, p: keras.ops.mean(p), False)):
        of_loss = amc_tf.Task(
            (X, targets), (X, targets), compile=lambda m, loss=loss: m.compile("sgd", loss, ["mae"])
        )
        of_loss = amc_tf.Task(**{**vars(of_loss), "metric": "loss", "batch_size": BATCH})
        if refused:
            with pytest.raises(
                amc_tf.AmcError, match="sample 80 .*not finite in its labels of 'dose'"
            ):
                of_loss.check(net)
    with pytest.raises(amc_tf.AmcError, match="sample 4 .*not finite in its sample weights"):
        w = W.copy()
        w[4] = np.inf
        task((X, Y, w)).check(model())


def test_empty_data_is_an_error_wherever_it_is_drawn_from(net):
    for empty in ((X[:0], Y[:0]), known(X[:0], Y[:0]), []):
        with pytest.raises(amc_tf.AmcError, match="empty"):
            task((X, Y)).sample_inputs(empty, net, 5)
        with pytest.raises(amc_tf.AmcError, match="validation data is empty"):
            task((X, Y), validation=empty).check(net)
