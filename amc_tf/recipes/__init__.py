"""Training recipes for pruned networks, ready for `Task(fine_tune=...)`.

A `Recipe` is a function of a compiled model, which it trains in place: warm-up and cosine schedule,
averaged weights, augmentation by Keras layers, re-estimated batch norms. `distill` is one whose
loss follows the dense network, too.
"""

from amc_tf.lazy import front_door

TYPE_CHECKING = False

if TYPE_CHECKING:
    from amc_tf.recipes.recipe import Recipe as Recipe
    from amc_tf.recipes.recipe import distill as distill
else:
    __getattr__, __dir__, __all__ = front_door(
        __name__, {"amc_tf.recipes.recipe": "Recipe distill"}
    )
