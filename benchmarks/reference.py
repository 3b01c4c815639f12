"""The references for all benchmarks: the paper's DQN and TD3 in plain PyTorch.

An update of DQN has three forward passes of the whole network (prediction, arg-max, target), all
with dropout; attention that materialises its (T, T) matrices; loops over parameters in the
optimiser and the target update; and metrics that are read immediately. TD3 has two critics, one
after the other, and an Adam for each of encoder, policy and critics. They use no code of memrl, so
that they do not change with memrl.
Shape letters as in ``memrl/interfaces.py``.
"""

from __future__ import annotations

import copy
import math
import random
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

N_ACTION = 4


class Attention(nn.Module):
    """Causal self-attention with materialised weights, and dropout on them."""

    def __init__(self, width: int, n_head: int, rows: int, dropout: float) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("causal", torch.ones(rows, rows).tril().bool())

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> Tensor:
        """Attend within x (B, T, D), or from one step to the past, and append the step to it."""
        B, T, D = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, D // self.n_head).transpose(1, 2)
            for part in self.qkv(x).split(D, dim=2)
        )
        if past is not None:
            k, v = past[:] = [
                torch.cat([old, new], 2) for old, new in zip(past, (k, v), strict=True)
            ]
            weights = (q @ k.transpose(-1, -2) / math.sqrt(D // self.n_head)).softmax(-1)
            y = self.dropout(weights) @ v
            return self.out(y.transpose(1, 2).reshape(B, T, D))
        weights = q @ k.transpose(-1, -2) / math.sqrt(D // self.n_head)
        weights = torch.where(self.causal[:T, :T], weights, torch.tensor(-1e4))
        y = self.dropout(weights.softmax(-1)) @ v
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class Block(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, n_head: int, rows: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, n_head, rows, dropout)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.drop1, self.drop2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor, past: list[Tensor] | None = None) -> Tensor:
        x = x + self.drop1(self.attention(self.norm1(x), past))
        hidden = F.gelu(self.up(self.norm2(x)), approximate="tanh")
        return x + self.drop2(self.down(hidden))


class GPT(nn.Module):
    """The paper's Transformer."""

    def __init__(self, width: int, n_layer: int, n_head: int, rows: int, dropout: float) -> None:
        super().__init__()
        frequency = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
        angle = torch.arange(rows).unsqueeze(1) * frequency
        self.register_buffer("position", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, n_head, rows, dropout) for _ in range(n_layer))
        self.norm = nn.LayerNorm(width)

        self.width = width

    def forward(self, x: Tensor, state: list[list[Tensor]] | None = None) -> Tensor:
        """Map (T, B, D) to (T, B, D); with a state, map one step that follows the state's."""
        begin = 0 if state is None else state[0][0].shape[2]
        y = self.dropout(x.transpose(0, 1) + self.position[begin : begin + len(x)])
        for i, block in enumerate(self.blocks):
            y = block(y, None if state is None else state[i])
        return self.norm(y).transpose(0, 1)


class Network(nn.Module):
    """Embeddings, a sequence model and a head, with the paper's sizes for T-Mazes."""

    def __init__(self, model: str, length: int, dropout: float) -> None:
        super().__init__()
        obs_dim, action_dim = (64, 64) if model == "gpt" else (32, 16)
        self.obs, self.action = nn.Linear(2, obs_dim), nn.Linear(N_ACTION, action_dim)
        self.model: nn.Module
        if model == "gpt":
            self.model = GPT(128, 1, 1, length + 4, dropout)
        else:
            self.model = nn.LSTM(obs_dim + action_dim, 128)
        layers = [nn.Linear(128, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
        self.head = nn.Sequential(*layers, nn.Linear(256, N_ACTION))

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Map observations (T + 1, B, 2) and actions (T, B) to values (T + 1, B, 4)."""
        one_hot = F.one_hot(action, N_ACTION).float()
        previous = torch.cat([torch.zeros_like(one_hot[:1]), one_hot])[: len(obs)]
        x = torch.cat([F.relu(self.action(previous)), F.relu(self.obs(obs))], dim=-1)
        h = self.model(x)
        h = h[0] if isinstance(h, tuple) else h
        return self.head(h)  # type: ignore[no-any-return]

    def begin(self) -> Any:
        """Return the state at the start of one episode."""
        if isinstance(self.model, nn.LSTM):
            return (torch.zeros(1, 1, 128), torch.zeros(1, 1, 128))
        return [[torch.zeros(1, 1, 0, 128), torch.zeros(1, 1, 0, 128)] for _ in self.model.blocks]

    @torch.no_grad()
    def step(self, obs: Tensor, previous: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map one observation (2,) and the action before it, one-hot (4,), to values (4,)."""
        x = torch.cat([F.relu(self.action(previous)), F.relu(self.obs(obs))]).view(1, 1, -1)
        if isinstance(self.model, nn.LSTM):
            h, state = self.model(x, state)
        else:
            h = self.model(x, state)
        return self.head(h)[0, 0], state


class Reference:
    """The update as in a textbook."""

    def __init__(self, model: str, length: int, dropout: float = 0.1, device: str = "cpu") -> None:
        self.online = Network(model, length, dropout).to(device)
        self.target = copy.deepcopy(self.online)
        self.optimizer = torch.optim.Adam(self.online.parameters(), lr=3e-4)

    def play(self, env: Any, epsilon: float) -> int:
        """Play one exploring episode in one environment; return its number of steps."""
        obs, _ = env.reset()
        state, previous, steps, over = self.online.begin(), torch.zeros(N_ACTION), 0, False
        while not over:
            values, state = self.online.step(torch.as_tensor(obs), previous, state)
            greedy = random.random() >= epsilon
            action = int(values.argmax()) if greedy else random.randrange(N_ACTION)
            previous = F.one_hot(torch.tensor(action), N_ACTION).float()
            obs, _, terminated, truncated, _ = env.step(action)
            over = terminated or truncated
            steps += 1
        return steps

    def update(self, batch: Any) -> dict[str, float]:
        """Do one gradient step on windows with ``obs, action, reward, terminated, mask``."""
        obs, action, reward, mask = batch.obs, batch.action, batch.reward, batch.mask.float()
        with torch.no_grad():
            best = self.online(obs, action)[1:].argmax(-1, keepdim=True)
            value = self.target(obs, action)[1:].gather(-1, best).squeeze(-1)
            target = reward + 0.99 * (1 - batch.terminated.float()) * value
        q = self.online(obs[:-1], action[:-1])
        q = q.gather(-1, action.unsqueeze(-1)).squeeze(-1)
        n = mask.sum().clamp(min=1)
        loss = ((q - target).square() * mask).sum() / n
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.copy_(0.995 * slow + 0.005 * fast)
        norms = [p.grad.norm().item() for p in self.online.parameters() if p.grad is not None]
        norm = sum(norms) / len(norms)
        return {"loss": loss.item(), "q": (q * mask).sum().item() / n.item(), "grad_norm": norm}


class ContinuousNetwork(nn.Module):
    """Embeddings, a sequence model, a policy and two critics, with the paper's sizes for robots."""

    def __init__(self, model: str, n_obs: int, n_action: int, length: int, dropout: float) -> None:
        super().__init__()
        obs_dim, action_dim = (64, 64) if model == "gpt" else (32, 16)
        self.obs, self.action = nn.Linear(n_obs, obs_dim), nn.Linear(n_action, action_dim)
        self.model: nn.Module
        if model == "gpt":
            self.model = GPT(128, 1, 1, length + 4, dropout)
        else:
            self.model = nn.LSTM(obs_dim + action_dim, 128)
        self.policy = mlp(128, n_action)
        self.critics = nn.ModuleList([mlp(128 + n_action, 1), mlp(128 + n_action, 1)])

    def forward(self, obs: Tensor, action: Tensor) -> Tensor:
        """Map observations (T + 1, B, N) and actions (T, B, A) to summaries (T + 1, B, 128)."""
        previous = torch.cat([torch.zeros_like(action[:1]), action])
        x = torch.cat([F.relu(self.obs(obs)), F.relu(self.action(previous))], dim=-1)
        h = self.model(x)
        return h[0] if isinstance(h, tuple) else h

    def values(self, h: Tensor, action: Tensor) -> list[Tensor]:
        """Map summaries and actions (T, B, A) to two estimates (T, B)."""
        x = torch.cat([h, action], dim=-1)
        return [critic(x).squeeze(-1) for critic in self.critics]


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Return a head of the paper."""
    layers = [nn.Linear(inputs, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, outputs))


class ReferenceTD3:
    """The update as in a textbook, with one encoder, which learns from the critics' loss alone."""

    def __init__(
        self, model: str, n_obs: int, n_action: int, length: int, device: str = "cpu"
    ) -> None:
        self.online = ContinuousNetwork(model, n_obs, n_action, length, 0.1).to(device)
        self.target = copy.deepcopy(self.online)
        policy = list(self.online.policy.parameters())
        critics = list(self.online.critics.parameters())
        heads = {*policy, *critics}
        encoder = [p for p in self.online.parameters() if p not in heads]
        self.optimizers = [torch.optim.Adam(part, lr=3e-4) for part in (encoder, policy, critics)]

    def update(self, batch: Any) -> dict[str, float]:
        """Do one gradient step on windows with ``obs, action, reward, terminated, mask``."""
        obs, action, reward, mask = batch.obs, batch.action, batch.reward, batch.mask.float()
        n = mask.sum().clamp(min=1)
        with torch.no_grad():
            h = self.target(obs, action)[1:]
            noise = (0.2 * torch.randn_like(action)).clamp(-0.5, 0.5)
            next_action = (self.target.policy(h).tanh() + noise).clamp(-1, 1)
            value = torch.min(*self.target.values(h, next_action))
            target = reward + 0.99 * (1 - batch.terminated.float()) * value
        h = self.online(obs, action)[:-1]
        q1, q2 = self.online.values(h, action)
        critic_loss = (((q1 - target) ** 2 + (q2 - target) ** 2) * mask).sum() / n
        for parameter in self.online.critics.parameters():
            parameter.requires_grad_(False)
        own = self.online.policy(h.detach()).tanh()
        policy_loss = -(torch.min(*self.online.values(h.detach(), own)) * mask).sum() / n
        for parameter in self.online.critics.parameters():
            parameter.requires_grad_(True)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        (critic_loss + policy_loss).backward()
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(self.target.parameters(), self.online.parameters(), strict=True):
                slow.copy_(0.995 * slow + 0.005 * fast)
        norms = [p.grad.norm().item() for p in self.online.parameters() if p.grad is not None]
        losses = {"critic_loss": critic_loss.item(), "policy_loss": policy_loss.item()}
        return losses | {"loss": sum(losses.values()), "grad_norm": sum(norms) / len(norms)}
