"""The drawn channel graph: what is in it, its colours, its two formats, its layout."""

import random
import re
import xml.etree.ElementTree as ET

import keras
import numpy as np
import pytest
import zoo
from keras import layers as kl

import amc_tf
from amc_tf.graph.flattening import flatten
from amc_tf.graph.inspection import drawing as lib
from amc_tf.graph.inspection.dot import to_dot
from amc_tf.graph.inspection.html import to_html
from amc_tf.graph.inspection.layout import _nondecreasing, layout

MODELS = (
    "plain residual residual_operators zero_padded_shortcut depthwise_multiplier concatenated "
    "squeeze_excite spatial_attention sliced reshaped nested_backbone shared_layers two_outputs "
    "one_dimensional unlisted_in_the_middle"
).split()
SVG = "{http://www.w3.org/2000/svg}"
STRING = r'"(?:[^"\\]|\\.)*"'


def drawn(name):
    graph = amc_tf.analyze(zoo.build(name))
    return graph, lib.picture(graph)


def html_boxes(page):
    """(title, fills without grey) of each box of a page."""
    found = []
    for box in ET.fromstring(page).iter(SVG + "g"):
        fills = {rect.get("fill") for rect in box.iter(SVG + "rect")} - {"none", lib.GREY}
        found.append((box.find(SVG + "title").text, fills))
    return found


def dot_statements(text):
    """Parses the subset of DOT that is written: nodes and edges to their attributes."""
    attribute = rf"\s*(\w+)=({STRING}|\w+)"
    body = re.fullmatch(r"digraph \w+ \{\n(.*)\n\}\n", text, re.DOTALL).group(1)
    statements, depth = {}, 0
    for line in body.split("\n"):
        if re.fullmatch(rf"\s*subgraph \w+ \{{{attribute}", line):
            depth += 1
        elif line.strip() == "}":
            depth -= 1
        elif not re.fullmatch(rf"({attribute})+", line):
            head, attributes = re.fullmatch(
                rf"\s*(\w+(?: -> \w+)?) \[((?:{attribute})*)\]", line
            ).group(1, 2)
            assert head in ("node", "edge") or head not in statements or "->" in head
            statements[head] = {k: unquoted(v) for k, v in re.findall(attribute, attributes)}
    assert depth == 0
    return statements


def unquoted(text):
    if not text.startswith('"'):
        return text
    meant = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}
    text = re.sub(r"\\.", lambda m: meant[m.group()], text[1:-1])
    return text.replace("&amp;", "&")


@pytest.mark.parametrize("name", MODELS)
def test_boxes_carry_the_groups_that_change_their_width(name):
    """By a second method: the model is rebuilt with one channel fewer in each group."""
    graph, picture = drawn(name)
    network = graph.network
    boxes = picture.boxes[len(network.inputs) :]
    assert [box.name for box in boxes] == [network.name(c.operation) for c in network.calls]
    dense = widths(network)
    explained = np.zeros_like(dense)
    for number, group in enumerate(graph.groups.values()):
        plan = amc_tf.PruningPlan({group.name: tuple(range(1, group.channels))})
        lost = dense - widths(flatten(amc_tf.rebuild(network.model, graph, plan)))
        assert [number in box.channels.groups for box in boxes] == (lost > 0).tolist()
        explained += lost * group.channels
    # What no group explains belongs to none.
    assert [box.channels.stays for box in boxes] == (dense > explained).tolist()
    assert all(box.channels == lib.Channels(stays=True) for box in boxes if box.refusal)


def widths(network):
    """Channels each call returns."""
    return np.array([sum(network.tensors[n].shape[-1] for n in c.outputs) for c in network.calls])


@pytest.mark.parametrize("name", ["concatenated", "sliced", "squeeze_excite", "residual"])
def test_boxes_share_a_colour_just_if_they_share_a_group(name):
    _, picture = drawn(name)
    groups = [set(box.channels.groups) for box in picture.boxes]
    html = [fills for _, fills in html_boxes(to_html(picture))]
    statements = dot_statements(to_dot(picture))
    dot = [
        set(statements[f"n{i}"]["fillcolor"].split(":")) - {lib.GREY} for i in range(len(groups))
    ]
    assert dot == html
    for fills in (html, dot):
        for i in range(len(groups)):
            assert len(fills[i]) == len(groups[i])
            for j in range(i):
                assert bool(fills[i] & fills[j]) == bool(groups[i] & groups[j])
    for i, row in enumerate(picture.table.rows):  # the legend's are the same colours
        legend = statements[f"g{i}"]
        assert legend["label"].startswith(f"{row.name}\n{row.channels} channels, {row.macs}")
        for number, fills in enumerate(html):
            assert (legend["fillcolor"] in fills) == (i in groups[number])


def test_colours_of_many_groups_differ():
    colours = [lib.colour(i) for i in range(1000)]
    assert len(set(colours)) == 1000 and lib.GREY not in colours
    assert all(re.fullmatch("#[0-9a-f]{6}", c) for c in colours)


@pytest.mark.parametrize("name", MODELS)
def test_every_operation_and_group_is_in_both_files(name):
    graph, picture = drawn(name)
    page, dot = to_html(picture), dot_statements(to_dot(picture))
    boxes = html_boxes(page)
    for i, box in enumerate(picture.boxes):
        assert dot[f"n{i}"]["label"] == f"{box.name}\n{box.class_name}\n{box.shape}"
        assert boxes[i][0].startswith(f"{box.name} ({box.class_name}): {box.shape}")
        assert (dot[f"n{i}"].get("color") == lib.REFUSED) == bool(box.refusal)
    arrows = {(f"n{e.source} -> n{e.target}") for e in picture.edges}
    assert arrows == {head for head in dot if head.startswith("n") and "->" in head}
    root = ET.fromstring(page)
    assert len(list(root.iter(SVG + "path"))) == len(picture.edges)
    rows = [[cell.text for cell in row.iter("td")] for row in root.iter("tr")][1:]
    assert [row[0] for row in rows] == list(graph.groups)
    refused = root.findall(f".//{SVG}rect[@class='refused']")
    assert len(refused) == sum(bool(box.refusal) for box in picture.boxes)
    assert all(f"{r.operation} ({r.class_name})" in page for r in graph.refused)


def test_names_are_escaped_and_nothing_is_fetched():
    name = """a<b>&"c'\\d&amp;"""
    x = inputs = keras.Input((2, 2, 1), name="<in>")
    x = kl.Conv2D(3, 1, name=name)(x)
    x = kl.Conv2D(2, 1, name="]]> </script>".replace("/", "|"))(x)
    graph = amc_tf.analyze(keras.Model(inputs, x, name="<&>"))
    picture = lib.picture(graph)
    page = to_html(picture)
    root = ET.fromstring(page)
    assert [text.split(" (")[0] for text, _ in html_boxes(page)][:2] == ["<in>", name]
    assert [cell.text for cell in root.iter("td")][0] == name
    assert root.find("head/title").text.startswith("<&>: 1 groups")
    dot = dot_statements(to_dot(picture))
    assert dot["n1"]["label"] == f"{name}\nConv2D\n2 x 2 x 3"
    assert dot["g0"]["label"].split("\n")[0] == name
    assert re.findall(r"https?:[^\"]*", page) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"\b(src|href|import|url)\b", page)


def test_layout_has_no_overlaps_and_edges_go_down_around_boxes():
    chance = random.Random(0)
    widths = [chance.randint(20, 200) for _ in range(500)]
    pairs = {(max(0, i - chance.randint(1, 12)), i) for i in range(1, 500) for _ in range(2)}
    edges = sorted(pairs, key=lambda pair: pair[1])
    places = layout(widths, edges)
    rows = {}
    for (x, y, width), wanted in zip(places.boxes, widths, strict=True):
        assert width == wanted and y < places.height
        assert x >= width / 2 and x + width / 2 <= places.width
        rows.setdefault(y, []).append((x - width / 2, x + width / 2))
    for row in rows.values():
        row.sort()
        assert all(a[1] < b[0] for a, b in zip(row, row[1:], strict=False))
    for (source, target), points in zip(edges, places.edges, strict=True):
        (x, y, _), (to_x, to_y, _) = places.boxes[source], places.boxes[target]
        assert points[0][0] == x and y < points[0][1] < to_y
        assert points[-1] == (to_x, to_y)
        heights = [point[1] for point in points]
        assert heights == sorted(heights)
        for (at, top), (same, bottom) in zip(points[1:-1:2], points[2:-1:2], strict=True):
            assert at == same and top < bottom
            assert not any(left < at < right for left, right in rows[top])


def test_a_chain_is_drawn_straight():
    places = layout([50, 80, 20], [(0, 1), (1, 2)])
    assert np.ptp([x for x, _, _ in places.boxes]) < 1e-6


def test_nearest_nondecreasing_sequence():
    assert _nondecreasing([3, 1, 2, 5, 4]) == [2, 2, 2, 4.5, 4.5]
    assert _nondecreasing([1, 2, 3]) == [1, 2, 3]
    assert _nondecreasing([]) == []
