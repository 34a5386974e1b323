"""The settings of a recovery."""

from __future__ import annotations

import dataclasses

from amc_tf.errors import AmcError, choice, whole

_WHOLE = {"views": 1, "batch_size": 1, "seed": 0}
WHEN = ("unlabelled", "always", "never")


@dataclasses.dataclass(frozen=True)
class RecoverySettings:
    """How a pruned network is trained to give what the dense network gives, without labels.

    Attributes:
        when: `unlabelled`: where the task has no training data and no training code;
            `always`: before every fine-tuning; `never`.
        views: number of distorted views of the calibration images that are trained on, at most:
            training ends where the images held out gain nothing any more. An epoch is one pass
            over the images.
        batch_size: number of views of a step.
        rate: largest learning rate (Adam), relative to the size of the weights to each output. It
            rises in a twentieth of the steps and falls by a cosine to 0.
        features: weight of the error of the features beside that of the outputs.
        distort: whether inputs that have the form of images are cropped, mirrored and mixed. Else
            the images are trained on as they are.
        average: decay of the moving average of the weights, which is what is kept.
        seed: seed of the views.
    """

    when: str = "unlabelled"
    views: int = 20_000
    batch_size: int = 32
    rate: float = 1e-4
    features: float = 1.0
    distort: bool = True
    average: float = 0.99
    seed: int = 0

    def __post_init__(self) -> None:
        choice("when", self.when, WHEN)
        for name, least in _WHOLE.items():
            object.__setattr__(self, name, whole(name, getattr(self, name), least))
        if not self.rate > 0:
            raise AmcError(f"expected a rate above 0, received {self.rate!r}")
        if not 0 <= self.average < 1:
            raise AmcError(f"expected an average in [0, 1), received {self.average!r}")
        if not self.features >= 0:
            raise AmcError(f"expected features of at least 0, received {self.features!r}")
