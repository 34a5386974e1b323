"""The groups of a network: channels that no layer can tell apart, in the order they are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from amc_tf.graph.channel_classes import Classes
from amc_tf.graph.channel_graph import Group, Site
from amc_tf.graph.layer_rule import Ids

# Of each class: (number of the site, role, how often the class is in it).
_Signature = tuple[tuple[int, str, int], ...]


def groups_of(
    sites: Sequence[Site],
    classes: Classes,
    frozen: np.ndarray,
    makers: Sequence[str],
    normalised: Sequence[Ids],
) -> dict[str, Group]:
    """Groups the classes that appear equally often in every role of every site.

    A joint class counts as each of its parts. Frozen classes are left out.

    Args:
        sites: the sites of the network.
        classes: its classes.
        frozen: whether each class must stay, boolean (classes,).
        makers: name of the operation that made each class.
        normalised: ids over which statistics are taken.

    Returns:
        The groups by name, ordered by the first layer that reads their channels, because the
        agent goes along the network.
    """
    alike: dict[_Signature, list[int]] = {}
    for class_number, seen in enumerate(_signatures(sites, classes, frozen)):
        if seen:
            alike.setdefault(seen, []).append(class_number)
    first_read = {
        key: min((i for i, role, _ in key if role in sites[i].summed()), default=len(sites))
        for key in alike
    }
    groups: dict[str, Group] = {}
    approximate = np.zeros(classes.count, bool)
    for ids in normalised:
        for class_number in classes.of_id[ids].tolist():
            approximate[list(classes.parts.get(class_number, (class_number,)))] = True
    for key in sorted(alike, key=lambda k: (first_read[k], alike[k][0])):
        found = np.array(alike[key])
        producers = _names(sites[i] for i, role, _ in key if _makes(sites[i], role))
        consumers = _names(sites[i] for i, role, _ in key if role in sites[i].summed())
        if not consumers:
            continue  # nothing sums over them: no weight to save or refit
        stem = name = (producers or (makers[found[0]],))[0]
        copy = 1
        while name in groups:
            copy += 1
            name = f"{stem}:{copy}"
        is_approximate = bool(approximate[found].any())
        groups[name] = Group(name, len(found), producers, consumers, found, is_approximate)
    return groups


def _signatures(sites: Sequence[Site], classes: Classes, frozen: np.ndarray) -> list[_Signature]:
    seen: list[list[tuple[int, str, int]]] = [[] for _ in frozen]
    for i, site in enumerate(sites):
        for role, of_role in site.roles.items():
            found, times = np.unique(of_role, return_counts=True)
            total: dict[int, int] = {}
            for class_number, n in zip(found.tolist(), times.tolist(), strict=True):
                for part in classes.parts.get(class_number, (class_number,)):
                    total[part] = total.get(part, 0) + n
            for part, n in total.items():
                if not frozen[part]:
                    seen[part].append((i, role, n))
    return [tuple(of_class) for of_class in seen]


def _names(sites: Iterable[Site]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(site.name for site in sites))


def _makes(site: Site, role: str) -> bool:
    """Returns whether a role holds channels that a site computes, not those of its input."""
    own = {role for roles in site.rule.weights.values() for role in roles}
    if role != "out" and not (role.startswith("out@") and role in own):
        return False
    held = not site.rule.macs and role in own  # a table of rows, or one weight alone
    return bool(site.rule.mixes) or held
