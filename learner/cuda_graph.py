"""The update as one CUDA graph: a single launch instead of a few hundred."""

import torch
from torch import Tensor

from learner.update import UpdateInputs, UpdateStep

_WARM_UP_UPDATES = 3


class GraphedStep:
    """Runs an `UpdateStep` from a graph, captured for the first batch's shape; other shapes run without.

    The updates that warm up are updates like any other, so that a graphed run learns what another one does.
    """

    def __init__(self, step: UpdateStep) -> None:
        self._step = step
        self._device = next(step.online.parameters()).device
        self._stream = torch.cuda.Stream(self._device)
        self._runs = 0
        self._inputs: UpdateInputs | None = None  # the memory that the graph reads
        self._captured: tuple[torch.cuda.CUDAGraph, Tensor] | None = None

    def run(self, inputs: UpdateInputs) -> Tensor:
        """As `UpdateStep.run`; what it returns is overwritten by the next call."""
        if self._inputs is None:
            self._inputs = UpdateInputs(*(tensor.clone() for tensor in inputs))
        if inputs.s_tm1.shape != self._inputs.s_tm1.shape:
            return self._step.run(inputs)
        for static, fresh in zip(self._inputs, inputs, strict=True):
            static.copy_(fresh)
        self._runs += 1
        if self._runs <= _WARM_UP_UPDATES:
            return self._warm_up(self._inputs)
        if self._captured is None:
            self._captured = self._capture(self._inputs)
        graph, output = self._captured
        graph.replay()
        return output

    def replay(self) -> None:
        """Runs the captured update once more, on the inputs of the last one.

        Raises:
            ValueError: nothing was captured yet.
        """
        if self._captured is None:
            raise ValueError("no update was captured yet")
        self._captured[0].replay()

    def _warm_up(self, inputs: UpdateInputs) -> Tensor:
        """On a stream of its own, as capturing asks for."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            output = self._step.run(inputs)
        current.wait_stream(self._stream)
        output.record_stream(current)
        return output

    def _capture(self, inputs: UpdateInputs) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Records the update without running it, and the tensor that it writes its result to."""
        self._step.optimizer.zero_grad()  # so that the gradients' memory becomes the graph's
        graph = torch.cuda.CUDAGraph()
        # Other threads copy to the device meanwhile, which the default mode takes for an error.
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            output = self._step.run(inputs)
        return graph, output
