"""What can go wrong, as one tree. A message says what, where, and what to type next.

TrtCompressError            4
├── UsageError              2  wrong command line or config
│   ├── ConfigError         2  a key of the config: file, line, key
│   └── MissingPathError    2  a path that is not there
├── UnusableInputError      3  what was given cannot be used
│   ├── ModelError          3  damaged, unsafe or unsupported model
│   │   └── OperatorError   3  an operator that the torch view does not have
│   └── DataError           3  samples that do not fit the model
└── StageError              4  a stage failed
    ├── ExportError         4  PyTorch to ONNX went wrong, or the result differs
    ├── PruneError          4  a cut or a budget that the graph does not allow
    ├── PlacementError      4  INT8 or FP16 could not be written into the graph
    ├── RecoverError        4  a training diverged, or a training loop of the user failed
    ├── CompileError        4  a backend refused the graph
    │   ├── EngineLoadError   6  an engine of another TensorRT or another GPU than there is
    │   └── EngineShapeError  7  a batch or a length that an engine was not built for
    ├── StoreError          4  the artifact store or the build folder cannot be written
    ├── ServingError        5  a server did not come up, or what it serves is not what was packaged
    │   └── RepositoryError   8  a config.pbtxt and what lies beside it disagree
    └── RemoteError        20  another machine did not do its part
        ├── UnreachableError    21  it does not answer
        ├── LoginError          22  it refuses the key, or is not the machine that it was
        ├── RemoteToolError     23  it lacks TensorRT or the card
        ├── HostLostError       24  it went away half-way
        └── RemoteSpaceError    25  no space on it
"""

from __future__ import annotations


class TrtCompressError(Exception):
    """Base of every error that is meant for the user.

    Args:
        what: one sentence: what is wrong.
        where: file, node, tensor or config key.
        hint: what to do, best a command to type.
    """

    exit_code = 4

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        hint = f"\nhint: {self.hint}" if self.hint else ""
        return f"{place}{self.what}{hint}"


class UsageError(TrtCompressError):
    """Wrong command line or config."""

    exit_code = 2


class ConfigError(UsageError):
    """A key of the config is wrong; `where` is `file:line: key`."""


class MissingPathError(UsageError):
    """A path that was named does not exist."""


class UnusableInputError(TrtCompressError):
    """What was given cannot be used."""

    exit_code = 3


class ModelError(UnusableInputError):
    """The model is damaged, unsafe or uses what is not supported."""


class OperatorError(ModelError):
    """The torch view does not have an operator, or not with these attributes."""


class DataError(UnusableInputError):
    """The samples do not fit the model, or cannot be read."""


class StageError(TrtCompressError):
    """A stage failed."""


class ExportError(StageError):
    """PyTorch to ONNX went wrong, or the exported graph does not give PyTorch's answers."""


class PruneError(StageError):
    """The graph cannot be cut so, or not as far as was asked."""


class PlacementError(StageError):
    """INT8 or FP16 could not be written into the graph."""


class RecoverError(StageError):
    """A training diverged, or the user's own training loop failed."""


class CompileError(StageError):
    """A backend refused the graph or failed to build an engine."""


class EngineLoadError(CompileError):
    """An engine was built by another release of TensorRT, or for another GPU, than there is."""

    exit_code = 6


class EngineShapeError(CompileError):
    """No optimization profile of an engine holds a batch or a length."""

    exit_code = 7


class StoreError(StageError):
    """The artifact store or the build folder cannot be written."""


class ServingError(StageError):
    """A server did not come up or is gone, or what it serves is not what was packaged."""

    exit_code = 5


class RepositoryError(ServingError):
    """A model's config.pbtxt and what lies beside it disagree."""

    exit_code = 8


class RemoteError(StageError):
    """Another machine did not do its part of a build."""

    exit_code = 20


class UnreachableError(RemoteError):
    """The other machine does not answer."""

    exit_code = 21


class LoginError(RemoteError):
    """The other machine refuses the key, or does not show the host key that is known of it."""

    exit_code = 22


class RemoteToolError(RemoteError):
    """The other machine lacks what builds the engine: TensorRT, or the card."""

    exit_code = 23


class HostLostError(RemoteError):
    """The connection to the other machine broke while it worked."""

    exit_code = 24


class RemoteSpaceError(RemoteError):
    """There is no space on the other machine."""

    exit_code = 25
