"""The same update with less overhead on a GPU: torch.compile, or one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from memrl.interfaces import Agent, Episodes
from memrl.memory import Memory

Update = Callable[[Episodes], dict[str, Tensor]]
WARM_UP = 3  # updates before the capture, as PyTorch requires: libraries initialise in them


def update_function(agent: Agent, kind: str) -> Update:
    """Return the agent's update: "eager" as it is, or else "compiled" or "graphed"."""
    if kind == "compiled":
        compile_(agent)
    return Graphed(agent.update) if kind == "graphed" else agent.update


def compile_(agent: Agent) -> None:
    """Have torch.compile fuse each memory's pass over whole windows; acting stays as it is."""
    for network in vars(agent).values():
        for module in network.modules() if isinstance(network, nn.Module) else ():
            if isinstance(module, Memory):
                module.compile()


class Graphed:
    """An agent's update as one CUDA graph: captured once, replayed on batches copied into place.

    Every batch must have the shapes of the first one. The first updates run without a graph.
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self.done = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch; return its metrics."""
        if self.done < WARM_UP:
            self.done += 1
            return self._on_side_stream(batch)
        if self.graph is None:  # a capture records the kernels without running them
            self.batch = Episodes(*(column.clone() for column in batch))
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.metrics = self.update(self.batch)
        for buffer, column in zip(self.batch, batch, strict=True):
            buffer.copy_(column)
        self.graph.replay()
        return {name: value.clone() for name, value in self.metrics.items()}

    def _on_side_stream(self, batch: Episodes) -> dict[str, Tensor]:
        # As PyTorch requires: what libraries and autograd set up at first use must not be tied to
        # the default stream, which cannot be captured.
        current, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            metrics = self.update(batch)
        current.wait_stream(stream)
        return metrics
