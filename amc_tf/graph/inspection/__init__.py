"""The channel graph for people to read: as text, as a Graphviz drawing and as an HTML page.

`describe` lists the groups, what they cost, and what is frozen and why. `picture` makes the boxes
and edges of a drawing; `to_dot` and `to_html` return it in their formats.
"""

from typing import TYPE_CHECKING

from amc_tf.lazy import front_door

if TYPE_CHECKING:
    from amc_tf.graph.inspection.dot import to_dot as to_dot
    from amc_tf.graph.inspection.drawing import picture as picture
    from amc_tf.graph.inspection.html import to_html as to_html
    from amc_tf.graph.inspection.listing import describe as describe
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__,
        {
            "amc_tf.graph.inspection.dot": "to_dot",
            "amc_tf.graph.inspection.drawing": "picture",
            "amc_tf.graph.inspection.html": "to_html",
            "amc_tf.graph.inspection.listing": "describe",
        },
    )
