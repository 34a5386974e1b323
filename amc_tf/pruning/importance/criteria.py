"""Which channels of a group to keep, given how many.

A criterion gives every channel a number, and the channels with the largest are
kept. Numbers are compared only within a group (the search chooses how many
channels a group keeps), so criteria need no common scale.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from amc_tf.errors import AmcError
from amc_tf.graph.channel_graph import ChannelGraph
from amc_tf.graph.plan import PruningPlan
from amc_tf.pruning.importance.effects import effects_of
from amc_tf.pruning.importance.elimination import elimination_order
from amc_tf.pruning.importance.halves import Halves
from amc_tf.pruning.importance.scores import (
    Part,
    choose,
    filters,
    known_classes,
    l1,
    of_groups,
    rows_of,
    summed,
)
from amc_tf.pruning.refit.dense import gather
from amc_tf.pruning.surgery import rebuild
from amc_tf.pruning.weights import has_weight, making_weights, mixing_weights, numpy_of
from amc_tf.training.divergence import divergence
from amc_tf.training.forms import batches_of
from amc_tf.training.task import Task

Importance = Mapping[str, np.ndarray]
# (graph, task) -> group name to float64 array (channels,), finite and not negative.
Criterion = Callable[[ChannelGraph, Task | None], dict[str, np.ndarray]]

# Examples in one gradient of `taylor`. Few, as effects of opposite sign cancel within a batch.
_TAYLOR_BATCH = 32


def consumer_magnitude(graph: ChannelGraph, task: Task | None = None) -> dict[str, np.ndarray]:
    """L1 norm of the weights that read each channel (AMC, section 3.2).

    Channels that no kernel reads (the width of attention's queries and keys, which are multiplied)
    are ranked by the filters that compute them.

    Where several layers read a channel (a residual stream), each layer's norms
    are divided by their mean first, so that all layers count the same.

    Args:
        graph: the analysed model; its current weights are read.
        task: not used.

    Returns:
        Group name to float64 array (channels,).
    """
    del task
    score, known = summed(
        graph,
        (
            (classes, l1(rows_of(numpy_of(weight), axis)))
            for _, weight, axis, classes, _ in mixing_weights(graph)
        ),
    )
    otherwise, _ = summed(graph, ((classes, l1(rows)) for classes, rows in filters(graph)))
    return choose(graph, known, of_groups(graph, score), of_groups(graph, otherwise))


def producer_l1(graph: ChannelGraph, task: Task | None = None) -> dict[str, np.ndarray]:
    """L1 norm of the filters that compute each channel (Li et al., ICLR 2017).

    Depthwise filters count too: they compute the channel they read. Several
    layers are combined as in `consumer_magnitude`; a group that no filter
    computes (of zero padding, for example) is ranked by `consumer_magnitude`.

    Args, Returns: as `consumer_magnitude`.
    """
    del task
    return _or_consumers(graph, ((classes, l1(rows)) for classes, rows in filters(graph)))


def producer_l2(graph: ChannelGraph, task: Task | None = None) -> dict[str, np.ndarray]:
    """L2 norm of the filters that compute each channel (He et al., IJCAI 2018).

    Args, Returns: as `producer_l1`.
    """
    del task
    return _or_consumers(
        graph, ((classes, np.linalg.norm(rows, axis=1)) for classes, rows in filters(graph))
    )


def geometric_median(graph: ChannelGraph, task: Task | None = None) -> dict[str, np.ndarray]:
    """Sum of a filter's distances to the others of its layer (FPGM, He et al., CVPR 2019).

    The other filters can make up for one in the middle of them. Unlike in the
    paper, a filter of zeros scores 0: it computes nothing, however far it is
    from the others.

    Args, Returns: as `producer_l1`.
    """
    del task
    return _or_consumers(graph, ((classes, _distances(rows)) for classes, rows in filters(graph)))


def batch_norm_scale(graph: ChannelGraph, task: Task | None = None) -> dict[str, np.ndarray]:
    """|gamma| of the batch norms that read each channel (network slimming, Liu et al., ICCV 2017).

    It is most meaningful for networks trained with an L1 penalty on gamma.
    Several batch norms are combined as in `consumer_magnitude`; a group that no
    batch norm with a gamma reads is ranked by `consumer_magnitude`.

    Args, Returns: as `consumer_magnitude`.
    """
    del task
    return _or_consumers(
        graph,
        (
            (site.roles["in"], np.abs(numpy_of(site.call.operation.gamma).astype(np.float64)))
            for site in graph.first_sites()
            if site.rule.kind.batch_norm and has_weight(site.call.operation, "gamma")
        ),
    )


def taylor(graph: ChannelGraph, task: Task | None = None) -> dict[str, np.ndarray]:
    """Change of the loss without each channel, to first order (Molchanov et al., 2019).

    Imagine a gate of 1 that multiplies all weights that read a channel (those
    that pruning zeroes). Its gradient is sum(weight * gradient of the weight),
    over all readers of the channel. The magnitude of that gradient is taken
    for each 32 examples and averaged: over the whole training set, the
    gradients of a trained network would cancel.

    The loss is the user's, without penalties on weights. It is computed on
    `task.calibration_size` examples, drawn over all training data. Dropout is off, and batch norms
    use their moving statistics. Validation data is not used; it is for the
    search's reward.

    Args:
        graph: the analysed model; its current weights are read.
        task: the user's training data and loss.

    Returns:
        Group name to float64 array (channels,), in units of the loss.

    Raises:
        AmcError: there is no task, or a gradient is not finite; see also `check_loss`.
    """
    if task is None:
        raise AmcError(
            "importance 'taylor' needs labelled data and a loss; pass an amc_tf.Task, or choose a "
            "criterion that reads weights only, such as 'consumer_magnitude'"
        )
    dense = graph.network.model
    model = task.compiled(rebuild(dense, graph, None), dense)  # the user's model is not changed
    check_loss(model)
    for variable in model.trainable_variables:
        variable.regularizer = None
    variables = {
        f"{layer.name}/{weight.name}": weight for layer in model.layers for weight in layer.weights
    }
    # Of each channel, the weights that read it; and those that make it, if none read it.
    read = [*mixing_weights(graph)]
    known = known_classes(graph, (found.classes for found in read))
    whole = all(known[group.classes].all() for group in graph.groups.values())
    others = [] if whole else [*making_weights(graph)]
    gated = [
        (number, variables[f"{site.name}/{weight.name}"], axis, classes)
        for number, weights in enumerate((read, others))
        for site, weight, axis, classes, _ in weights
    ]
    score, count = np.zeros((2, graph.classes)), 0
    for x, y, sample_weight, size in _training_batches(task):
        gradients = _gradients(model, [variable for _, variable, *_ in gated], x, y, sample_weight)
        gates = np.zeros((2, graph.classes))
        for (number, variable, axis, classes), gradient in zip(gated, gradients, strict=True):
            if gradient is not None:  # None: this layer has no effect on the loss
                products = numpy_of(variable).astype(np.float64) * numpy_of(gradient)
                np.add.at(gates[number], classes, rows_of(products, axis).sum(axis=1))
        score += np.abs([graph.gathered(of_weights) for of_weights in gates]) * size
        count += size
    if not np.isfinite(score).all():
        raise AmcError(
            "importance 'taylor': the gradient of the loss on the training data is not finite; "
            "check the loss and the model's weights"
        )
    first, second = (
        {name: of_weights[group.classes] / count for name, group in graph.groups.items()}
        for of_weights in score
    )
    return choose(graph, known, first, second)


def check_loss(model: keras.Model) -> None:
    """Checks that a model has a loss, whose gradients `taylor` needs.

    Raises:
        AmcError: it is not compiled, or without a loss.
    """
    own = type(model).compute_loss is not keras.Model.compute_loss  # the user's needs no other
    if not model.compiled or (model.loss is None and not own):
        raise AmcError(
            "importance 'taylor' needs the loss the model is trained with; give Task(compile=...), "
            "a function that calls model.compile(optimizer, loss, ...)"
        )


def elimination(
    graph: ChannelGraph, task: Task | None = None, halves: Halves | None = None
) -> dict[str, np.ndarray]:
    """Order of removal that does least to the network's outputs.

    What counts is the error that remains in the outputs of the layers that read a group after a
    least-squares refit, from statistics of the dense network (see
    `amc_tf.pruning.importance.elimination`), each output weighted by what it does to the network's
    outputs (see `amc_tf.pruning.importance.effects`).

    Args:
        graph: the analysed model; its current weights are read.
        task: its unlabelled calibration images, and what its loss says of its outputs.
        halves: the calibration images and their statistics, if they are known.

    Returns:
        Group name to float64 array (channels,), 0 for the channel removed first.

    Raises:
        AmcError: there is no task, and so there are no images.
    """
    if task is None:
        raise AmcError("importance 'elimination' needs images; give a Task")
    dense = graph.network.model
    images = task.calibration_inputs(dense) if halves is None else halves.images
    statistics = gather(graph, images) if halves is None else halves.whole
    readers = {consumer.site.name for consumer in statistics.consumers}
    measure = divergence(task.twin(dense))
    effects = effects_of(graph, images, readers, measure.noise)
    return elimination_order(statistics, consumer_magnitude(graph), effects)


IMPORTANCES: Mapping[str, Criterion] = {
    function.__name__: function
    for function in (
        consumer_magnitude,
        producer_l1,
        producer_l2,
        batch_norm_scale,
        geometric_median,
        taylor,
        elimination,
    )
}

# Criteria that read the training data and the loss.
BY_GRADIENTS = (taylor.__name__,)


def strongest(importance: Importance, counts: Mapping[str, int]) -> PruningPlan:
    """Makes the plan that keeps the `counts[group]` most important channels of each group.

    Ties go to the lower index, so that the plan is a pure function of its arguments.
    """
    return PruningPlan(
        {
            name: np.sort(np.argsort(-importance[name], kind="stable")[:count]).tolist()
            for name, count in counts.items()
        }
    )


def _or_consumers(graph: ChannelGraph, parts: Iterable[Part]) -> dict[str, np.ndarray]:
    """Sums scores by group; groups that no layer scores get their `consumer_magnitude`."""
    score, known = summed(graph, parts)
    return choose(graph, known, of_groups(graph, score), consumer_magnitude(graph))


def _distances(rows: np.ndarray) -> np.ndarray:
    """Sums each row's Euclidean distances to all others; 0 for rows of zeros."""
    squares = np.square(rows).sum(axis=1)
    squared = squares[:, None] + squares - 2 * rows @ rows.T
    np.fill_diagonal(squared, 0)
    return np.where(squares > 0, np.sqrt(np.maximum(squared, 0)).sum(axis=1), 0)


def _gradients(model: keras.Model, variables: list[Any], x: Any, y: Any, weight: Any) -> list[Any]:
    """Computes gradients of the compiled loss in evaluation mode, for any kind of variable."""
    values = [variable.value for variable in variables]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(values)
        loss = model.compute_loss(x, y, model(x, training=False), weight, training=False)
    return [None if g is None else tf.convert_to_tensor(g) for g in tape.gradient(loss, values)]


def _training_batches(task: Task) -> Iterator[tuple[Any, Any, Any, int]]:
    """Yields (inputs, labels, sample weights or None, size), up to `calibration_size` examples."""
    examples = task.sample(task.training_data, task.calibration_size)
    batches = batches_of("train", examples, _TAYLOR_BATCH)
    for x, y, weight in batches:
        yield x, y, weight, len(keras.tree.flatten(x)[0])
