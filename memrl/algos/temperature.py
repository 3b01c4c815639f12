"""The temperature of discrete and continuous SAC (Haarnoja et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from memrl.algos.agent import MemoryAgent
from memrl.checks import require
from memrl.networks import adam


class Temperature:
    """The weight of the entropy, alpha: fixed or learned (Haarnoja et al. 2018).

    Args:
        alpha: the temperature, at least 0; if it is learned, the one to begin with, above 0.
        target_entropy: None for a fixed one; else what the policy's mean entropy tends to.
        lr: Adam's learning rate.
        device: where ``value``, a scalar, is.
    """

    def __init__(
        self, alpha: float, target_entropy: float | None, lr: float, device: torch.device
    ) -> None:
        if target_entropy is None:
            require(0 <= alpha < math.inf, "alpha", "at least 0", alpha)
        else:
            allowed = "above 0, or target_entropy null"
            require(0 < alpha < math.inf, "alpha", allowed, alpha)
        self.value = torch.tensor(alpha, dtype=torch.float32, device=device)
        self.target_entropy = target_entropy
        if target_entropy is not None:
            self.log_alpha = self.value.log().requires_grad_()
            self._set_value()  # as in a restored run, to the last bit
            self.optimizer = adam([self.log_alpha], lr)

    def learn(self, entropy: Tensor) -> None:
        """Move the temperature so that the policy's mean entropy, a scalar, tends to its target."""
        if self.target_entropy is None:
            return
        loss = self.log_alpha.exp() * (entropy - self.target_entropy)
        self.log_alpha.grad = torch.autograd.grad(loss, self.log_alpha)[0]
        self.optimizer.step()
        self._set_value()

    def _set_value(self) -> None:
        self.value.copy_(self.log_alpha.detach().exp())  # in place: a CUDA graph reads it there

    def state_dict(self) -> dict[str, Any]:
        if self.target_entropy is None:
            return {}
        log_alpha = self.log_alpha.detach().clone()
        return {"log_alpha": log_alpha, "alpha_optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; other entries of ``state`` are ignored."""
        if self.target_entropy is None:
            return
        self.optimizer.load_state_dict(state["alpha_optimizer"])
        with torch.no_grad():
            self.log_alpha.copy_(state["log_alpha"])
        self._set_value()


class TemperatureAgent(MemoryAgent):
    """An agent with a temperature. Its updates report the policy's ``entropy``."""

    def set_temperature(self, alpha: float, target_entropy: float | None, lr: float) -> None:
        """Set the temperature; arguments as for :class:`Temperature`."""
        self.temperature = Temperature(alpha, target_entropy, lr, self.device)
        self.alpha = self.temperature.value

    def end_update(self, metrics: dict[str, Tensor]) -> None:
        super().end_update(metrics)
        self.temperature.learn(metrics["entropy"])

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | self.temperature.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.temperature.load_state_dict(state)
