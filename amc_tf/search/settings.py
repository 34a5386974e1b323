"""The settings of a search."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from amc_tf.errors import AmcError, choice, choices, whole
from amc_tf.graph.constraints import Constraints
from amc_tf.graph.input_shapes import InputShape
from amc_tf.pruning.importance.criteria import IMPORTANCES
from amc_tf.pruning.refit.methods import REFITS
from amc_tf.runs.vocabulary import AGENT
from amc_tf.search.agents.ddpg.settings import DdpgSettings
from amc_tf.search.agents.handcrafted import PROFILES
from amc_tf.search.env.rewards import DIVERGENCE, REWARDS

# Imagined episodes after each episode of the agent: they keep its critic up to date.
REFRESHED = 2
# The plan that loses least by what the groups lose each on their own.
KNAPSACK = "knapsack"
# The plans that rank the channels of all groups at once, and the criterion by which each does.
GLOBAL_RANKINGS: Mapping[str, str] = {
    "global_l2": "producer_l2",
    "global_taylor": "taylor",
    "global_bn": "batch_norm_scale",
}
# AMC's agent is first: of plans that nothing else tells apart, the earlier policy's is chosen.
POLICIES = (AGENT, "response", "cmaes", "random", KNAPSACK, *GLOBAL_RANKINGS, *PROFILES)

# The settings that are whole numbers, and the least that each may be.
_WHOLE: Mapping[str, int] = {
    "episodes": 1,
    "seed": 0,
    "rounding": 1,
    "imagined_episodes": 0,
    "episode_samples": 1,
    "rerank": 1,
    "keep_best": 0,
}
_MAY_BE_NONE = ("episode_samples", "rounding")


@dataclasses.dataclass(frozen=True)
class SearchSettings:
    """The settings of a search.

    Attributes:
        episodes: number of episodes of the agent, and of each searcher it is compared with.
        seed: seed of all searchers and of sampled activations.
        reward: a name of `amc_tf.search.env.rewards.REWARDS`. `divergence` is minus the KL
            divergence of the outputs on the validation data from the dense network's. It guides
            the search where the score, right answers on some hundreds of samples, hardly tells
            plans apart; the best plans are still chosen among by their scores. Where outputs
            say no more than the score (the metric is the loss, or the loss takes no
            probabilities), or cannot be compared (with an `evaluate` of your own, with plans
            that are scored by a masked model, or with data that is read anew for each plan),
            the reward is `err`, and the log says why. `err` is minus the error by the metric,
            the paper's reward within a budget. `flops`, `params` and `latency` price a cost
            and need no budget.
        rounding: number of which channel counts are multiples. All of a group's channels may
            be kept, too, even if their number is no multiple, unless `rounding_strict`. None: 8,
            and less for a group that would have fewer than four counts to choose from (4 for 16
            channels, 2 for 8).
        rounding_strict: whether a group whose full width is no multiple of its rounding is
            pruned at least to the largest multiple below, as accelerators want that compute in
            blocks of 8 or 16 channels. A group narrower than its rounding stays whole; a
            warning names it. Frozen channels have the width that they have.
        min_preserve: least share of a group's channels that is kept. None: a tenth. Where a budget
            of MACs or parameters could not be met so, this and an open `rounding` are lowered.
        constraints: layers to freeze, and other values of `rounding` and
            `min_preserve` for single layers (see `amc_tf.graph.constraints.Constraints`).
        importance: criterion by which a group's channels are kept, a name of
            `amc_tf.pruning.importance.criteria.IMPORTANCES`.
        fill_budget: whether plans use up the budget (see `DecisionEnv`).
        warm_start: whether the agent's first episodes follow the plans of policies that do not
            search, `knapsack` and the hand-crafted ones among them.
        sensitivity: whether a search within a budget begins with what each group loses by the
            closed-form error of its refit (see `amc_tf.pruning.importance.refit_curves`). The
            agent's actions are then corrections of the plan that a model of the reward proposes,
            which begins with these losses (see `amc_tf.search.agents.correction`). False is the
            paper's agent.
        imagined_episodes: number of episodes from which the agent learns before its first own
            one; what they earn is predicted by the model.
        response_share: initial share of the agent's episodes after its warm-up that a model
            of the reward proposes as they are (see `amc_tf.search.agents.response_surface`), in
            [0, 1]. The model also proposes the episodes of the warm-up. The share grows while the
            agent's own plans are not the best (see `GuidedSearcher`). 0 is the paper's agent.
        input_shape: shape for which MACs are counted, for a model whose input has open sizes
            (see `amc_tf.analyze`); by default that of the validation data.
        allow_uncounted: whether MACs may be bounded or priced although the model does work
            that is not counted (`amc-inspect` lists it).
        allow_approximate: whether channels that a layer or RMS normalisation takes statistics
            over (the streams of transformers and ConvNeXt) may be dropped. The statistics are
            then those of the channels that are kept, and plans are scored with them.
        refit: method that restores weights before a plan is scored, a name of
            `amc_tf.pruning.refit.methods.REFITS`.
        final_refit: the same for the networks that are built in the end.
        early_stop: number of standard errors by which a plan must be behind its policy's best
            one for its scoring to end before all images are run; None for never. It is judged by
            what the reward is made of, the divergence or the score. Rewards that price a cost
            never end it: with them a plan of low accuracy may be the best.
        episode_samples: number of validation samples on which an episode's plan is scored while
            the reward is the divergence, as that tells plans apart on few. They are drawn at
            random by what they hold, whatever their order and batches. None for all. The plans of
            `rerank` are scored on all.
        rerank: number of each policy's best plans, by their rewards, that are scored once more
            with the final refit, on all samples. These scores decide, unless the reward prices a
            cost.
        policies: names of `POLICIES` that run; `amc` always does. `random`, `cmaes` (an
            evolution strategy) and `response` (the model of the reward without
            the agent) get as many episodes as the agent. `knapsack` is for a budget: the
            plan that loses least by what `sensitivity` says of each group, and the one that does
            so with whole residual streams. `global_l2`, `global_taylor` and `global_bn`
            are one plan each, for a budget: the channels of all groups are ranked by
            `producer_l2`, `taylor` (which needs the compiled loss) or `batch_norm_scale`, each
            divided by the largest of its group, and those above one threshold are kept; residual
            streams stay whole if the others can meet the budget (see
            `amc_tf.search.agents.global_ranking`). The agent's first episodes follow these plans,
            too. Without a budget, neither they nor the hand-crafted ones are played, and a
            warning says so.
        keep_best: number of the plans of the best scores (of the best rewards, if these price a
            cost) that are written to `best_plans.json`.
        ddpg: the agent's settings. Where it corrects plans (see `sensitivity`), its sigma is half
            of the one given, and it learns from its first episode on unless `learning_starts`
            says otherwise; rewards are told for each decision by itself, so that `gamma`,
            `reward_every_step` and `baseline` play no part.
    """

    episodes: int = 400
    seed: int = 0
    reward: str = DIVERGENCE
    rounding: int | None = None
    rounding_strict: bool = False
    min_preserve: float | None = None
    constraints: Constraints = Constraints()
    importance: str = "elimination"
    fill_budget: bool = True
    warm_start: bool = True
    sensitivity: bool = True
    imagined_episodes: int = 100
    response_share: float = 0.75
    input_shape: InputShape = ()
    allow_uncounted: bool = False
    allow_approximate: bool = False
    refit: str = "quick_in_order"
    final_refit: str = "in_order"
    early_stop: float | None = 3.0
    episode_samples: int | None = 2000
    rerank: int = 5
    policies: tuple[str, ...] = (AGENT, "random", KNAPSACK, "global_l2", *PROFILES)
    keep_best: int = 5
    ddpg: DdpgSettings = DdpgSettings()

    def __post_init__(self) -> None:
        for name, least in _WHOLE.items():
            value = getattr(self, name)
            if value is not None or name not in _MAY_BE_NONE:
                object.__setattr__(self, name, whole(name, value, least))
        if not 0 <= self.response_share <= 1:
            raise AmcError(f"expected response_share in [0, 1], received {self.response_share}")
        if KNAPSACK in self.policies and not self.sensitivity:
            raise AmcError(
                f"the policy {KNAPSACK!r} needs SearchSettings(sensitivity=True); leave it out of "
                "policies"
            )
        if self.early_stop is not None and self.early_stop <= 0:
            raise AmcError(
                f"expected early_stop as None or a positive number, received {self.early_stop}"
            )
        choices("policy", self.policies, POLICIES)
        choice("reward", self.reward, REWARDS)
        choice("importance", self.importance, IMPORTANCES)
        choice("refit", self.refit, REFITS)
        choice("final_refit", self.final_refit, REFITS)

    @property
    def criteria(self) -> frozenset[str]:
        """Names of the criteria of importance that the search computes."""
        ranked = (GLOBAL_RANKINGS[name] for name in self.policies if name in GLOBAL_RANKINGS)
        return frozenset([self.importance, *ranked])

    @property
    def learner(self) -> DdpgSettings:
        """The agent's settings, with the lengths of its phases set by `episodes`."""
        return self.ddpg.over(self.episodes)

    @property
    def correcting_learner(self) -> DdpgSettings:
        """The same for an agent that learns from imagined episodes first, and from the first on.

        It explores half as far, as it begins at a good plan.
        """
        sigma = max(self.ddpg.sigma / 2, self.ddpg.sigma_end)
        starts = self.ddpg.learning_starts or 0
        ddpg = dataclasses.replace(self.ddpg, learning_starts=starts, sigma=sigma)
        # Without demonstrations, nothing is imagined before the first episode.
        before = self.imagined_episodes if self.warm_start else 0
        return ddpg.over(self.episodes, before, 1 + REFRESHED)
