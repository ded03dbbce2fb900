"""The operators, by family; importing this fills the registry."""

from __future__ import annotations

from . import (  # noqa: F401  imported for what they register
    activations,
    arithmetic,
    attention,
    batchnorm,
    branches,
    casts,
    convolution,
    elementwise,
    gathering,
    indices,
    logic,
    losses,
    movement,
    norms,
    padding,
    pooling,
    products,
    quantization,
    randomness,
    recurrent,
    reductions,
    resizing,
    sampling,
    scattering,
    selection,
    sequences,
    shapes,
    signals,
)
