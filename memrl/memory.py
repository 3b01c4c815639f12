"""Memory = encoder -> sequence model; the one place where actions and rewards are shifted.

The summary h_t depends on observations o_0..o_t and on the actions and rewards before o_t:
the first input of an episode or window carries a zero action vector and a zero reward.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from memrl.actions import Actions, no_action
from memrl.interfaces import State
from memrl.networks import products_in


class Memory(nn.Module):
    """Summarise histories: (observations, actions, rewards) -> vectors of width ``output_dim``.

    Args:
        encoder: embeds one step.
        seq_model: reads the embedded steps.
        actions: their form.
        precision: number format in which the sequence model processes whole windows, that is in
            training; encoder and weights stay float32, and so does acting.
    """

    def __init__(
        self,
        encoder: nn.Module,
        seq_model: nn.Module,
        actions: Actions,
        precision: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.seq_model = seq_model
        self.actions = actions
        self.precision = precision
        self.output_dim: int = seq_model.output_dim  # type: ignore[assignment]

    def initial_state(self, batch_size: int) -> State:
        """Return the state of ``batch_size`` empty histories, for ``step``."""
        return self.seq_model.initial_state(batch_size)  # type: ignore[operator]

    def forward(
        self, obs: Tensor, action: Tensor, reward: Tensor, at: Tensor | None = None
    ) -> Tensor:
        """Return the summaries of whole windows.

        Args:
            obs: (T + 1, B, *obs_shape).
            action: (T, B, ...), as they are stored; entry t was taken after seeing ``obs[t]``.
            reward: (T, B), float32; entry t followed it.
            at: (n,), the entries that are wanted; None: all.

        Returns:
            (T + 1, B, output_dim), or (n, B, output_dim), in the format ``precision``; entry t
            depends on nothing after ``obs[t]``.
        """
        x = self.embed(obs, action, reward).to(self.precision)
        with products_in(self.precision, obs.device):
            if at is not None and hasattr(self.seq_model, "outputs_at"):
                h: Tensor = self.seq_model.outputs_at(x, at)  # type: ignore[operator]
            else:
                h = self.seq_model(x)[0]
                h = h if at is None else h[at]
        return h.to(self.precision)

    def embed(self, obs: Tensor, action: Tensor, reward: Tensor) -> Tensor:
        """Return the sequence model's inputs for whole windows, (T + 1, B, D)."""
        first = no_action(self.actions, action.shape[1], action.device)
        prev_action = torch.cat([first.unsqueeze(0), action])
        prev_reward = F.pad(reward, (0, 0, 1, 0))
        x: Tensor = self.encoder(obs, self.actions.encode(prev_action), prev_reward)
        return x

    def step(
        self, obs: Tensor, prev_action: Tensor, prev_reward: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Continue B histories by one step.

        Args:
            obs: (B, *obs_shape).
            prev_action: (B, ...), ``no_action`` at an episode's start.
            prev_reward: (B,), float32; 0 at an episode's start.
            state: what ``initial_state`` or the last step returned.

        Returns:
            Outputs (B, output_dim) and the next state.
        """
        x = self.encoder(obs, self.actions.encode(prev_action), prev_reward)
        y, state = self.seq_model(x.unsqueeze(0), state)
        return y[0], state

    @property
    def has_dropout(self) -> bool:
        """True if two forward passes in training mode may differ."""
        return any(
            (m.p if isinstance(m, _DropoutNd) else m.dropout) > 0
            for m in self.modules()
            if isinstance(m, _DropoutNd | nn.RNNBase | nn.MultiheadAttention)
        )
