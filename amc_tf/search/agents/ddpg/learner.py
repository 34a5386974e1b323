"""DDPG with AMC's exploration and baseline, built from parts of TF-Agents.

Only the agent's own process (`worker`) imports this module: TF-Agents needs Keras 2 as
`tf.keras`, and the user's process keeps Keras 3.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.agents.ddpg import actor_network, critic_network, ddpg_agent
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, trajectory
from tf_agents.trajectories import time_step as ts
from tf_agents.utils import common

from amc_tf.search.agents.ddpg import exploration
from amc_tf.search.agents.ddpg.settings import DdpgSettings

# Features are quotients of counts, so rounding may put one slightly out of its range.
_FEATURE_SLACK = 1e-3


class Replayed(NamedTuple):
    """One transition as the replay stores it.

    It is flat and leaves out the fields of the two time steps that are not used.

    Attributes:
        state: float32 [num_features].
        action: float32 [1], as executed.
        reward: float32 []; the baseline is not subtracted.
        next_state: float32 [num_features]; has no effect where discount is 0.
        discount: float32 [], 0 where nothing that comes later counts: for the last transition of an
            episode, and where it is known what an action earned by itself; 1 for all others.
    """

    state: tf.Tensor
    action: tf.Tensor
    reward: tf.Tensor
    next_state: tf.Tensor
    discount: tf.Tensor


class DdpgLearner:
    """Proposes actions and learns from finished episodes (paper, section 3).

    The critic learns `y = r - b + gamma * Q'(s', mu'(s'))`. Here r is the episode's final reward,
    given to each of its transitions, and b is the moving average of earlier episodes' rewards. b is
    subtracted when a transition is sampled, so that old transitions are judged by the current
    baseline. The settings can turn off either. Where it is known what each action earned by
    itself, r is that, and all of y.

    During the warm-up, actions are drawn around the untrained actor's action and nothing is
    learned, as in the authors' released code. After it, each episode ends with `updates_per_step`
    updates for each of its transitions, once the replay holds a batch.

    Args:
        settings: the agent's settings.
        num_features: length of a state.
        seed: seed of weights, exploration and replay, in [0, 2**32). The same seed, states and
            rewards give the same actions, bit by bit, if TensorFlow's operations are
            deterministic.

    Raises:
        ValueError: if num_features or seed is out of range.
    """

    def __init__(self, settings: DdpgSettings, num_features: int, seed: int) -> None:
        if num_features < 1:
            raise ValueError(f"Expected at least one feature, received {num_features}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"Expected a seed in [0, 2**32), received {seed}.")
        tf.keras.utils.set_random_seed(seed)
        self._random = np.random.default_rng(seed)
        self._settings = settings
        self._warmup = settings.phases()[0]
        starts = settings.learning_starts
        self._learning_starts = self._warmup if starts is None else starts
        self._num_features = num_features
        self._states: list[np.ndarray] = []
        self._episode = 0
        self._baseline: float | None = None

        observation = tensor_spec.TensorSpec([num_features], tf.float32, "state")
        # TF-Agents' actor ends in a tanh scaled to the action's range: (1 + tanh(x)) / 2 is
        # sigmoid(2 x), so on [0, 1] this is the paper's sigmoid.
        action = tensor_spec.BoundedTensorSpec([1], tf.float32, 0.0, 1.0, "action")
        actor = actor_network.ActorNetwork(
            observation, action, fc_layer_params=settings.hidden_units
        )
        critic = critic_network.CriticNetwork(
            (observation, action),
            observation_fc_layer_params=settings.hidden_units[:1],
            joint_fc_layer_params=settings.hidden_units[1:],
        )
        actor_optimizer = tf.keras.optimizers.Adam(settings.actor_learning_rate)
        critic_optimizer = tf.keras.optimizers.Adam(settings.critic_learning_rate)
        self.agent = ddpg_agent.DdpgAgent(
            ts.time_step_spec(observation),
            action,
            actor_network=actor,
            critic_network=critic,
            actor_optimizer=actor_optimizer,
            critic_optimizer=critic_optimizer,
            target_update_tau=settings.target_update_tau,
            td_errors_loss_fn=common.element_wise_squared_loss,
            gamma=settings.gamma,
            train_step_counter=tf.Variable(0, dtype=tf.int64),
        )
        self.agent.initialize()
        # The optimizers' variables must exist before training is compiled.
        actor_optimizer.build(actor.trainable_variables)
        critic_optimizer.build(critic.trainable_variables)
        self._actor = actor
        self._replay = tf_uniform_replay_buffer.TFUniformReplayBuffer(
            Replayed(
                state=observation,
                action=tensor_spec.TensorSpec([1], tf.float32, "action"),
                reward=tensor_spec.TensorSpec([], tf.float32, "reward"),
                next_state=tensor_spec.TensorSpec([num_features], tf.float32, "next_state"),
                discount=tensor_spec.TensorSpec([], tf.float32, "discount"),
            ),
            batch_size=1,
            max_length=settings.replay_capacity,
        )
        # Traced now, while the user's process is still busy with the dense network. AutoGraph is
        # off, as it would take seconds to rewrite the source of TF-Agents.
        state = tf.TensorSpec([num_features], tf.float32)
        count, scalar = tf.TensorSpec([], tf.int32), tf.TensorSpec([], tf.float32)
        each = tf.TensorSpec([None], tf.float32)
        self._actor_action = _compiled(self._mean_action, state)
        states = tf.TensorSpec([None, num_features], tf.float32)
        self._remember = _compiled(self._store, states, each, each, each)
        self._learn = _compiled(self._train, count, scalar)

    def act(self, state: np.ndarray) -> float:
        """Draws an action around the actor's action.

        Args:
            state: float32 [num_features], each feature in [0, 1].

        Returns:
            The action, in [0, 1].

        Raises:
            ValueError: if the state has another shape, is not finite or is not within [0, 1].
        """
        state = np.asarray(state, np.float32)
        if state.shape != (self._num_features,):
            raise ValueError(
                f"Expected a state of shape ({self._num_features},), received {state.shape}."
            )
        # Written so that NaN fails, too.
        if not (np.all(state >= -_FEATURE_SLACK) and np.all(state <= 1.0 + _FEATURE_SLACK)):
            raise ValueError(
                f"Expected features in [0, 1], received {state.tolist()}; scale them by their "
                "largest value over the network."
            )
        mean = self._settings.warmup_centre
        if mean is None or self._episode >= self._warmup:
            mean = float(self._actor_action(tf.constant(state)))
        self._states.append(state)
        return exploration.truncated_normal(
            self._random, mean, self._settings.sigma_at(self._episode)
        )

    def finish(self, actions: Sequence[float], reward: float | Sequence[float]) -> dict[str, float]:
        """Ends the episode: stores its transitions and, after the warm-up, learns.

        Args:
            actions: the actions that were executed, in [0, 1], one for each state since the end
                of the last episode.
            reward: the episode's reward, or what each action earned, whatever came after it.

        Returns:
            `sigma`: sigma of this episode's exploration. `baseline`: the b used for this episode's
            updates. `actor_loss`, `critic_loss`: means over these updates, NaN if there were none.

        Raises:
            ValueError: if there are too few or too many actions, one is out of range, the reward
                is not finite, or training diverged.
        """
        executed = np.asarray(actions, np.float32)
        if executed.shape != (len(self._states),) or not self._states:
            raise ValueError(
                f"Expected one action for each call of act, {len(self._states)} and at least one "
                f"in this episode; received an array of shape {executed.shape}."
            )
        if not np.all((executed >= 0.0) & (executed <= 1.0)):
            raise ValueError(f"Expected actions in [0, 1], received {executed.tolist()}.")
        earned = np.asarray(reward, np.float32)
        if earned.shape not in ((), executed.shape) or not np.all(np.isfinite(earned)):
            raise ValueError(
                f"Expected a finite reward, or {len(executed)} of them, received {reward}."
            )

        settings, alone = self._settings, earned.ndim > 0
        if alone:
            discounts = np.zeros_like(executed)
            baseline = 0.0  # it is told relative to what other actions would have earned
        else:
            discounts = np.append(np.ones_like(executed[1:]), np.float32(0.0))
            total = float(earned)
            earned = earned * (1.0 if settings.reward_every_step else 1.0 - discounts)
            earned = np.broadcast_to(earned, executed.shape).astype(np.float32)
            # The first episode has no earlier rewards; with its own as the baseline, r - b is 0.
            baseline = total if self._baseline is None else self._baseline
            decay = settings.baseline_decay
            self._baseline = decay * baseline + (1.0 - decay) * total
        self._remember(*map(tf.constant, (np.stack(self._states), executed, earned, discounts)))
        losses = math.nan, math.nan
        warm = self._episode >= self._learning_starts
        if warm and int(self._replay.num_frames()) >= settings.batch_size:
            updates = tf.constant(len(executed) * settings.updates_per_step)
            try:
                losses = tuple(float(loss) for loss in self._learn(updates, _scalar(baseline)))
            except tf.errors.InvalidArgumentError:  # TF-Agents checks the numerics itself
                losses = math.nan, math.nan
            if not all(map(math.isfinite, losses)):
                raise ValueError(
                    f"Expected finite losses, received {losses[0]} of the actor and {losses[1]} of "
                    f"the critic in episode {self._episode}: training diverged; scale the rewards "
                    f"(this one is {reward}) to the order of 1, or lower the learning rates."
                )
        diagnostics = {
            "sigma": settings.sigma_at(self._episode),
            "baseline": baseline,
            "actor_loss": losses[0],
            "critic_loss": losses[1],
        }
        self._episode += 1
        self._states.clear()
        return diagnostics

    def sample(self, baseline: tf.Tensor) -> trajectory.Transition:
        """Draws a batch from the replay uniformly, in the form that TF-Agents trains on.

        Args:
            baseline: float32 [], the b subtracted from every reward.

        Returns:
            A transition of tensors [batch_size, ...].
        """
        replayed, _ = self._replay.get_next(sample_batch_size=self._settings.batch_size)
        reward = replayed.reward
        if self._settings.baseline:
            every_step = self._settings.reward_every_step
            reward -= baseline if every_step else baseline * (1.0 - replayed.discount)
        middle = tf.fill(tf.shape(replayed.reward), ts.StepType.MID)
        return trajectory.Transition(
            time_step=ts.TimeStep(
                step_type=middle,
                reward=tf.zeros_like(replayed.reward),
                discount=tf.ones_like(replayed.discount),
                observation=replayed.state,
            ),
            action_step=policy_step.PolicyStep(action=replayed.action),
            next_time_step=ts.TimeStep(
                step_type=tf.where(replayed.discount > 0.0, middle, ts.StepType.LAST),
                reward=reward,
                discount=replayed.discount,
                observation=replayed.next_state,
            ),
        )

    def _mean_action(self, state: tf.Tensor) -> tf.Tensor:
        action, _ = self._actor(state[tf.newaxis])
        return action[0, 0]

    def _store(
        self, states: tf.Tensor, actions: tf.Tensor, rewards: tf.Tensor, discounts: tf.Tensor
    ) -> tf.Tensor:
        last = tf.shape(states)[0] - 1

        def add(step: tf.Tensor) -> tf.Tensor:
            transition = Replayed(
                state=states[step],
                action=actions[step, tf.newaxis],
                reward=rewards[step],
                next_state=states[tf.minimum(step + 1, last)],
                discount=discounts[step],
            )
            self._replay.add_batch(tf.nest.map_structure(lambda x: x[tf.newaxis], transition))
            return step + 1

        # One at a time: the replay may wrap around within an episode.
        return tf.while_loop(lambda step: step <= last, add, [0], parallel_iterations=1)

    def _train(self, updates: tf.Tensor, baseline: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def update(
            done: tf.Tensor, actor_loss: tf.Tensor, critic_loss: tf.Tensor
        ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            losses = self.agent.train(self.sample(baseline)).extra
            return done + 1, actor_loss + losses.actor_loss, critic_loss + losses.critic_loss

        _, actor_loss, critic_loss = tf.while_loop(
            lambda done, *_: done < updates, update, [0, 0.0, 0.0], parallel_iterations=1
        )
        count = tf.cast(updates, tf.float32)
        return actor_loss / count, critic_loss / count


def _compiled(function: Callable[..., Any], *specs: tf.TensorSpec) -> Callable[..., Any]:
    return tf.function(function, autograph=False).get_concrete_function(*specs)


def _scalar(value: float) -> tf.Tensor:
    return tf.constant(value, tf.float32)
