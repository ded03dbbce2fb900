"""The stages of a build, in order. A new stage is one file and one line here."""

from __future__ import annotations

from ..stage import Reserved, Stage
from .assess import assess
from .calibrate import calibrate
from .compile import compile_
from .emulate import emulate
from .equalize import equalize
from .export import export
from .package import package
from .postprocess import postprocess
from .precision import precision
from .prune import prune
from .qat import qat
from .quantize import quantize
from .recover import recover
from .round import round_
from .samples import samples
from .simplify import simplify
from .sparsify import sparsify
from .validate import validate

STAGES: tuple[Stage | Reserved, ...] = (
    export,
    postprocess,
    samples,
    simplify,
    prune,
    recover,
    assess,
    sparsify,
    equalize,
    calibrate,
    precision,
    quantize,
    round_,
    qat,
    emulate,
    compile_,
    validate,
    package,
)
