"""The same update with less overhead on a GPU: torch.compile, or one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from memrl.interfaces import Agent, Episodes
from memrl.memory import Memory

Update = Callable[[Episodes], dict[str, Tensor]]
WARM_UP = 3  # updates before the capture, as PyTorch asks: libraries set themselves up in them


def compile_(agent: Agent) -> None:
    """Have torch.compile fuse what each memory does with whole windows; acting stays as it is."""
    for network in vars(agent).values():
        for module in network.modules() if isinstance(network, nn.Module) else ():
            if isinstance(module, Memory):
                module.compile()


class Graphed:
    """An agent's update as one CUDA graph: captured once, replayed on batches copied into place.

    Every batch must have the shapes of the first one. The first updates are done as they come.
    """

    def __init__(self, update: Update) -> None:
        self.update = update
        self.done = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, batch: Episodes) -> dict[str, Tensor]:
        """Do one gradient step on the batch; return its metrics."""
        if self.done < WARM_UP:
            self.done += 1
            return self._aside(batch)
        if self.graph is None:  # captured, that is noted down, but not done
            self.batch = Episodes(*(column.clone() for column in batch))
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.metrics = self.update(self.batch)
        for place, column in zip(self.batch, batch, strict=True):
            place.copy_(column)
        self.graph.replay()
        return {name: value.clone() for name, value in self.metrics.items()}

    def _aside(self, batch: Episodes) -> dict[str, Tensor]:
        # On a stream of its own, as PyTorch asks: what libraries and autograd set up at first use
        # must not be tied to the default stream, which cannot be captured.
        here, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            metrics = self.update(batch)
        here.wait_stream(stream)
        return metrics
