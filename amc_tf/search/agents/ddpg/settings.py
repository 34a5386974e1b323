"""The settings of the DDPG agent, with the paper's values as defaults."""

import dataclasses
import math

PAPER_EPISODES = 400


@dataclasses.dataclass(frozen=True)
class DdpgSettings:
    """Exploration and learning of the DDPG agent (He et al., AMC, ECCV 2018, sections 3 and 4).

    Attributes:
        hidden_units: number of units in each hidden layer of actor and critic. The action enters
            the critic at its second layer.
        actor_learning_rate: learning rate of the actor (Adam).
        critic_learning_rate: learning rate of the critic (Adam).
        target_update_tau: share of the trained weights mixed into the target networks after each
            update.
        batch_size: number of transitions in an update. No update happens before the replay holds
            this many.
        replay_capacity: number of transitions kept; the oldest are dropped first.
        gamma: discount of the next decision's value. With 1, every decision of an episode counts
            the same.
        sigma: standard deviation of the exploration's normal distribution during the warm-up,
            before truncation to [0, 1].
        warmup_episodes: number of episodes before sigma begins to fall; None
            for a quarter of the search's episodes (the paper's 100 of 400, if no search sets how
            many).
        learning_starts: number of episodes before learning starts; None for those of the warm-up.
        decay_episodes: number of episodes over which sigma then falls exponentially to
            `sigma_end`; None for half of the search's episodes, so that the last quarter uses what
            was learnt.
        sigma_end: final value of sigma. In the authors' released code, sigma falls without end
            (1e-16 within a search), which stops all exploration; this fault is not repeated here.
        warmup_centre: mean of the actions drawn during the warm-up, before truncation; None for
            the action of the untrained actor, which is about 0.5 everywhere.
        reward_every_step: whether every transition of an episode carries its reward (as in the
            authors' released code), or only the last one.
        baseline: whether the moving average of earlier rewards is subtracted.
        baseline_decay: weight of the old value in the moving average of earlier rewards.
        updates_per_step: number of updates for each transition, made at the end of its episode.

    Raises:
        ValueError: if a setting is out of range; the message gives its name, the range and the
            value.
    """

    hidden_units: tuple[int, ...] = (300, 300)
    actor_learning_rate: float = 1e-4
    critic_learning_rate: float = 1e-3
    target_update_tau: float = 0.01
    batch_size: int = 64
    replay_capacity: int = 2000
    gamma: float = 1.0
    sigma: float = 0.5
    warmup_episodes: int | None = None
    learning_starts: int | None = None
    decay_episodes: int | None = None
    sigma_end: float = 0.01
    warmup_centre: float | None = None
    reward_every_step: bool = True
    baseline: bool = True
    baseline_decay: float = 0.95
    updates_per_step: int = 1

    def __post_init__(self) -> None:
        units = self.hidden_units
        _require(
            isinstance(units, tuple) and len(units) >= 2 and all(_is_count(u, 1) for u in units),
            "hidden_units",
            "a tuple of at least two positive integers",
            units,
        )
        for name in ("actor_learning_rate", "critic_learning_rate"):
            rate = getattr(self, name)
            _require(_is_number(rate) and rate > 0, name, "a positive number", rate)
        tau = self.target_update_tau
        _require(_is_number(tau) and 0 < tau <= 1, "target_update_tau", "in (0, 1]", tau)
        _require(_is_count(self.batch_size, 1), "batch_size", "a positive integer", self.batch_size)
        _require(
            _is_count(self.replay_capacity, self.batch_size),
            "replay_capacity",
            f"an integer of at least batch_size ({self.batch_size})",
            self.replay_capacity,
        )
        _require(_is_number(self.gamma) and 0 <= self.gamma <= 1, "gamma", "in [0, 1]", self.gamma)
        # Above 1 the truncated normal is almost uniform, and sampling by rejection is slow.
        _require(_is_number(self.sigma) and 0 < self.sigma <= 1, "sigma", "in (0, 1]", self.sigma)
        _require(
            self.warmup_episodes is None or _is_count(self.warmup_episodes, 0),
            "warmup_episodes",
            "None or an integer, 0 or more",
            self.warmup_episodes,
        )
        _require(
            self.learning_starts is None or _is_count(self.learning_starts, 0),
            "learning_starts",
            "None or an integer, 0 or more",
            self.learning_starts,
        )
        _require(
            self.decay_episodes is None or _is_count(self.decay_episodes, 1),
            "decay_episodes",
            "None or a positive integer",
            self.decay_episodes,
        )
        _require(
            _is_number(self.sigma_end) and 0 < self.sigma_end <= self.sigma,
            "sigma_end",
            f"above 0 and at most sigma ({self.sigma})",
            self.sigma_end,
        )
        centre = self.warmup_centre
        _require(
            centre is None or (_is_number(centre) and 0 <= centre <= 1),
            "warmup_centre",
            "None or in [0, 1]",
            centre,
        )
        decay = self.baseline_decay
        _require(_is_number(decay) and 0 <= decay < 1, "baseline_decay", "in [0, 1)", decay)
        _require(
            _is_count(self.updates_per_step, 1),
            "updates_per_step",
            "a positive integer",
            self.updates_per_step,
        )

    def phases(self, episodes: int = PAPER_EPISODES) -> tuple[int, int]:
        """Returns the number of episodes of the warm-up and of the decay after it.

        Args:
            episodes: number of episodes of the search; used only for a phase whose setting is
                None.
        """
        warmup, decay = self.warmup_episodes, self.decay_episodes
        return (
            episodes // 4 if warmup is None else warmup,
            max(episodes // 2, 1) if decay is None else decay,
        )

    def over(self, episodes: int, before: int = 0, each: int = 1) -> "DdpgSettings":
        """Returns the settings with the phases set for a search.

        Args:
            episodes: number of episodes of the search.
            before: number of episodes that the agent plays before them; the warm-up follows these.
            each: number of episodes that the agent plays for each of them.
        """
        warmup, decay = self.phases(episodes)
        return dataclasses.replace(
            self, warmup_episodes=before + warmup * each, decay_episodes=decay * each
        )

    def sigma_at(self, episode: int) -> float:
        """Returns sigma of an episode (paper, section 4).

        Args:
            episode: number of the episode, counted from 0.
        """
        warmup, decay = self.phases()
        decayed = min(max(episode - warmup, 0) / decay, 1.0)
        return self.sigma * (self.sigma_end / self.sigma) ** decayed


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _require(holds: bool, name: str, expected: str, received: object) -> None:
    if not holds:
        raise ValueError(f"DdpgSettings.{name} must be {expected}; received {received!r}.")
