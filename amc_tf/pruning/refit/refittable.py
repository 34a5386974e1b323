"""Which layers can be refitted."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from amc_tf.graph.activations import is_linear
from amc_tf.graph.channel_graph import ChannelGraph, Site
from amc_tf.graph.layer_table import is_registered, kind_of
from amc_tf.graph.widths import prunable
from amc_tf.pruning.refit.promises import broken_batch_norm, broken_product
from amc_tf.pruning.weights import has_weight, mixing_kernels, named_weight, numpy_of

_LOG = logging.getLogger(__name__)


def refittable(graph: ChannelGraph) -> Iterator[tuple[Site, Any]]:
    """Yields the layers that least squares can refit (at their last call) and their kernels.

    Grouped convolutions are left out, and so are layers that could not be analysed. A warning
    names each layer that the user registered and that cannot be refitted.
    """
    refused = {refusal.operation for refusal in graph.refused}
    for site, weight in mixing_kernels(graph):
        if site.name in refused:
            continue
        reason = _obstacle(graph, site, weight)
        if reason is None:
            yield graph.sites_of(site.call.operation)[-1], weight
        elif reason and is_registered(site.call.operation):
            what = graph.network.told(site.call.operation)
            _LOG.warning("%s is pruned, but not refitted: %s", what, reason)


def _obstacle(graph: ChannelGraph, site: Site, weight: Any) -> str | None:
    """Returns why a kernel is not refitted: "" if its kind of layer never is, None if it is."""
    product = site.rule.kind.product
    if product is None:
        return (
            "its row does not say that it is a product with a kernel; give amc_tf.register_layer "
            "kind=amc_tf.LayerKind(product=amc_tf.Product(...))"
        )
    if product.reads is None or _positions_hold_channels(graph, site):
        return ""
    if product.kernel != weight.name:
        return f"its row says that its kernel is named {product.kernel!r}, not {weight.name!r}"
    return broken_product(graph.network, site.call, product)


def _positions_hold_channels(graph: ChannelGraph, site: Site) -> bool:
    """Returns whether an axis along which a kernel is applied holds channels that may go.

    The rows that such a layer reads in a pruned network are not those of the dense one.
    """
    may_drop, indexed = prunable(graph), site.rule.indexed()
    return any(
        may_drop[classes].any()
        for role, classes in site.roles.items()
        if "@" in role and role not in indexed
    )


def intercept(graph: ChannelGraph, site: Site):
    """Finds the weight that can absorb a change of a layer's mean output.

    It is the layer's own bias, or the moving mean of a batch norm that is the
    only reader of the layer. The change is one of the linear output, so an
    activation in between rules the batch norm out.

    Returns:
        (layer's name, weight's name, value, sign of its effect); None if there is no such weight.
    """
    layer, network = site.call.operation, graph.network
    if has_weight(layer, "bias"):
        return site.name, "bias", numpy_of(named_weight(layer, "bias")), 1.0
    after = network.readers(site.call.outputs[0])
    linear = is_linear(getattr(layer, "activation", None))
    is_output = site.call.outputs[0] in network.outputs
    if len(after) == 1 and linear and not is_output:
        (reader,) = after
        norm = reader.operation
        calls = [c for c in network.calls if c.operation is norm]
        producers = graph.sites_of(layer)
        alone = kind_of(norm).batch_norm and len(calls) == len(producers) == 1
        if alone and has_weight(norm, "moving_mean") and not broken_batch_norm(network, reader):
            mean = numpy_of(named_weight(norm, "moving_mean"))
            return network.name(norm), "moving_mean", mean, -1.0
    return None
