"""`trtcompress recover`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..recovery import option_words as words
from . import options
from .main import say

if TYPE_CHECKING:
    from ..config import RecoverSettings
    from ..recovery.recover import Recovered, Request

WORK = ".recovery"
"""Behind the name of the file to write: where samples and checkpoints lie until it is there."""


@click.command(name="recover")
@click.argument("student", metavar="STUDENT.onnx", type=options.FILE)
@click.option(
    "--teacher", metavar="TEACHER.onnx", type=options.FILE, required=True, help="The model that it came from."
)
@options.data
@options.state
@options.samples
@click.option("--labels", is_flag=True, help="Learn from labels too; where there are many, from them alone in the end.")
@click.option(
    "--loss",
    metavar="NAME[=WEIGHT]",
    multiple=True,
    help="logits, labels, features, attention, relations, affinity; repeat it.  [default: logits, features]",
)
@click.option("--epochs", type=float, help="Passes over the samples.  [default: 20, and 200 to 3000 steps]")
@click.option("--steps", type=click.IntRange(min=1), help=words.sentence(f"{words.STEPS}, instead"))
@click.option("--minutes", type=float, help="Of training, instead; reading samples and writing come on top.")
@click.option(
    "--precision",
    type=click.Choice(["32", "bf16-mixed", "16-mixed"]),
    help="Of the training; 16-mixed needs a GPU, and is bf16-mixed on a CPU.  [default: 32]",
)
@click.option("--devices", type=click.IntRange(min=0), help="Processes, one a device; 0: all GPUs.  [default: 1]")
@click.option("--qat", is_flag=True, help="The student is a Q/DQ graph; it learns under its quantization.")
@click.option("--lr", type=float, help="Greatest learning rate.  [default: a probe picks it]")
@click.option("--batch", type=click.IntRange(min=1), help="Samples a step.  [default: 64; fewer in short --minutes]")
@click.option("--optimizer", type=click.Choice(["adamw", "sgd"]), help="[default: adamw]")
@click.option("--weight-decay", type=float, help=words.sentence(words.WEIGHT_DECAY, 1e-4))
@click.option("--clip", type=float, help=words.sentence(words.CLIP, 1))
@click.option("--ema", type=float, help=words.sentence(words.EMA, 0.999))
@click.option(
    "--blockwise/--no-blockwise",
    default=None,
    help="Fit block by block first.  [default: yes, but not from 4,096 samples in --minutes]",
)
@click.option("--augment/--no-augment", default=None, help="Change samples at random.  [default: from ten epochs on]")
@click.option(
    "--batchnorm/--no-batchnorm",
    default=None,
    help="Train with BatchNorm put back.  [default: from 50 steps of 16 samples on]",
)
@click.option(
    "--learn-scales/--no-learn-scales",
    default=None,
    help="With --qat: train scales too, or keep the calibrated ranges.  [default: train]",
)
@click.option("--temperature", type=float, help="Of class scores that are compared.  [default: 2; 8 for few samples]")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    help="It ends behind so many judgements without a gain in its second half.  [default: 10]",
)
@click.option("--checkpoint-activations", is_flag=True, help="Less memory for more time.")
@click.option(
    "--metric", metavar="NAME", shell_complete=options.metric_names, help=f"Told with the progress: {options.METRICS}."
)
@click.option(
    "--function",
    metavar="MODULE:NAME",
    help="A training loop of your own: gets the module, gives it back, decides all but --batch, --samples, --seed.",
)
@click.option("--restart", is_flag=True, help="Throw away the checkpoints of a killed training beside OUT.onnx.")
@click.option("--seed", type=click.IntRange(0, 2**64 - 1), help="Of what is random.  [default: 0]")
@options.onnx_output
@options.as_json
def command(
    student: str,
    teacher: str,
    data: str,
    samples: int | None,
    qat: bool,
    metric: str | None,
    restart: bool,
    output: str,
    as_json: bool,
    **how: Any,
) -> None:
    """Train a model that was cut or quantized to answer as the one that it came from. No labels are needed.

    Run it again after a kill: it goes on at the last checkpoint, in OUT.onnx.recovery/. With other options or models it
    is refused there, unless --restart is given.

    \b
    trtcompress recover small.onnx --teacher m.onnx --data samples.npz -o recovered.onnx
    trtcompress recover int8.onnx --teacher m.onnx --data samples.npz --qat -o trained.onnx
    """
    from ..datasets import open_data
    from ..recovery.recover import recover
    from ..store import store_errors

    request = _request(student, teacher, output, metric, restart, how)
    _check_quantized(request, qat)
    _check_scales(how, qat)
    opened = open_data(options.data_ref(data, samples), request.student)
    with store_errors(request.out.absolute().parent, "-o", free=", and the same command goes on"):
        made = recover(request, opened, _told())
    _show(made, metric, as_json)


def _request(
    student: str, teacher: str, output: str, metric: str | None, restart: bool, how: dict[str, Any]
) -> Request:
    """What is asked for, with everything looked up before any work starts."""
    from trtcompress_graph.errors import UsageError
    from trtcompress_graph.load import read_model

    from ..comparing import refuse_unread
    from ..recovery.own_options import refuse_ignored
    from ..recovery.recover import Request
    from ..stage import FunctionRef, MetricRef

    settings = refuse_ignored(_settings(how), more=("--metric",) if metric else ())
    out = Path(output)
    if metric is not None:
        from trtcompress_engines.metrics import find_metric

        find_metric(metric, Path.cwd())
    models = read_model(Path(student)), read_model(Path(teacher))
    metrics = (MetricRef(metric, Path.cwd(), ""),) if metric else ()
    refuse_unread(metrics, models[1])
    if models[0].digest == models[1].digest:
        raise UsageError(
            "student and teacher are the same model: there is nothing to bring back",
            where=f"{student} and {teacher}",
            hint="cut or quantize it first: trtcompress prune, trtcompress quantize",
        )
    return Request(
        student=models[0],
        teacher=models[1],
        settings=settings,
        out=out,
        work=out.with_name(out.name + WORK),
        metrics=metrics,
        function=FunctionRef(settings.function, Path.cwd(), "") if settings.function else None,
        restart=restart,
    )


def _settings(how: dict[str, Any]) -> RecoverSettings:
    """The options as the section `recover` of a config, whose rules hold here too.

    Raises:
        UsageError: they do not fit together.
    """
    from pydantic import ValidationError

    from trtcompress_graph.errors import UsageError

    from ..config import RecoverSettings

    lengths = [f"--{name}" for name in ("epochs", "steps", "minutes") if how[name] is not None]
    if len(lengths) > 1:
        what = f"{' and '.join(lengths)} {'both' if len(lengths) == 2 else 'all'} say how long"
        raise UsageError(what, hint="give one: --epochs 20, --steps 1000 or --minutes 10")
    try:
        return RecoverSettings.model_validate({name: value for name, value in how.items() if _is_given(name, value)})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = f"--{str(first['loc'][0]).replace('_', '-')}" if first["loc"] else ""
        what = first["msg"].removeprefix("Value error, ")
        raise UsageError(what, where=where, hint="see: trtcompress recover --help") from None


_SWITCHES = ("blockwise", "augment", "batchnorm", "learn_scales")
"""Options where `no` means something else than nothing."""


def _is_given(name: str, value: object) -> bool:
    """Whether an option was on the command line; 0 is an answer, for a bound to refuse or to mean none."""
    return value is not None and value != () and (value is not False or name in _SWITCHES)


def _check_scales(how: dict[str, Any], qat: bool) -> None:
    from trtcompress_graph.errors import UsageError

    if how["learn_scales"] is not None and not qat:
        option = f"--{'' if how['learn_scales'] else 'no-'}learn-scales"
        raise UsageError(
            "a float model has no scales", where=option, hint="leave it out, or add --qat for a Q/DQ graph"
        )


def _check_quantized(request: Request, qat: bool) -> None:
    from trtcompress_graph.errors import UsageError

    from ..recovery.quantization_aware import in_fp8, is_quantized
    from ..recovery.trainable import fixed_weights

    quantized = is_quantized(request.student)
    where = str(request.student.path)
    if in_fp8(request.student):
        hint = "train the float model, without --qat, and quantize that: trtcompress quantize --target GPU:fp8"
        raise UsageError("it is in FP8, whose weights are stored in eight bits and stay", where=where, hint=hint)
    if quantized and not qat:
        raise UsageError("it is quantized", where=where, hint="add --qat, to train it under its quantization")
    if qat and (held := fixed_weights(request.student)) and not quantized:
        what = f"--qat trains a Q/DQ graph, and the weights of {held} are integers without pairs"
        raise UsageError(what, where=where, hint="quantize the float model that it was made of: trtcompress quantize")
    if qat and not quantized:
        hint = "quantize it first: trtcompress calibrate, then trtcompress quantize"
        raise UsageError("--qat trains a Q/DQ graph, and this one quantizes nothing", where=where, hint=hint)


def _told() -> Any:
    """A line for each thing that begins, and for each judgement."""
    from ..recovery.progress import line_of

    shown = ""

    def told(what: str, done: int, total: int | None) -> None:
        nonlocal shown
        if what != shown:
            say(line_of(what, done, total))
        shown = what

    return told


def _show(made: Recovered, metric: str | None, as_json: bool) -> None:
    from ..outputs import recover_result
    from ..recovery.pace import steps_in_words
    from .output import print_json, print_table

    if as_json:
        print_json(recover_result(made))
    elif made.before is not None and made.after is not None:
        rows = [("loss", f"{made.before:.4g}", f"{made.after:.4g}")]
        if made.metric_before is not None and made.metric is not None:
            rows.append((str(metric), f"{made.metric_before:.4f}", f"{made.metric:.4f}"))
        print_table(("held out", "before", "after"), rows)
    for note in made.notes:
        say(note)
    if not as_json:
        own = made.before is None
        trained = "trained by your own loop, which was not judged" if own else steps_in_words(made.steps)
        say(f"{trained}; wrote {made.path} (SHA-256 {made.digest[:16]})")
