"""Drawing, without a display: numbers in, a matplotlib figure out."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

_PANEL_INCHES = 3.0


def observation_figure(state: NDArray[np.uint8]) -> Figure:
    """A stacked observation as the network sees it: its frames side by side, the oldest on the left.

    Args:
        state: grey frames, uint8 [S, H, W], oldest first.

    Raises:
        ValueError: the state has another shape.
    """
    if state.ndim != 3:
        raise ValueError(f"a state of images has the shape [S, H, W], not {state.shape}")
    stack = len(state)
    figure = Figure(figsize=(_PANEL_INCHES * stack, _PANEL_INCHES + 0.3), layout="constrained")
    panels = figure.subplots(ncols=stack, squeeze=False)[0]
    for age, (panel, frame) in enumerate(zip(panels, state, strict=True)):
        panel.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        panel.set_title(_age(stack - 1 - age), fontsize=10)
        panel.axis("off")
    return figure


def _age(steps: int) -> str:
    """How old a frame is."""
    return "now" if steps == 0 else f"{steps} step{'' if steps == 1 else 's'} ago"
