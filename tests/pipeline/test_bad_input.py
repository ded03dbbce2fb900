"""Bad input: the exit code, words that say what, where and what to do, no traceback, and nothing half-written."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from command_line import Ran, done, trtcompress
from small_builds import Small, small_classifier, tree
from triton_models import encoder

USAGE, UNUSABLE, FAILED = 2, 3, 4


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    """With ranges, an engine and a build beside it."""
    made = small_classifier(tmp_path_factory.mktemp("small"), samples=8)
    done("calibrate", made.model, "--data", made.data, "-o", made.folder / "ranges.json")
    done("compile", made.model, "-o", made.folder / "engine")
    done(
        *("build", made.model, "--data", made.data, "--out", made.folder, "--store", made.folder / "store", "--quiet"),
        *("--set", "measure.seconds=0.01", "--set", "targets=cpu:float", "--set", "name=built"),
    )
    return made


def refused(tmp_path: Path, code: int, words: tuple[str, ...], *args: object) -> Ran:
    """Run a command that has to refuse its input, and look at what it says and leaves."""
    store = tmp_path / "store"
    before = tree(tmp_path)
    ran = trtcompress(*args, cwd=tmp_path)
    assert ran.code == code, ran.err
    for word in words:
        assert word in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""
    after = {name: held for name, held in tree(tmp_path).items() if not name.startswith("store/")}
    assert after == before, "nothing is written, and nothing that was there is changed"
    assert not any(store.glob("tmp/*")), "no leftovers in the store"
    return ran


# --- config


CONFIG = """\
name: bad
model: {model}
data:
  calibration: {{source: {data}}}
targets: [cpu]
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("targets:", "tragets:", ("build.yaml:5: tragets", "unknown key 'tragets'", "did you mean 'targets'?")),
        ("targets: [cpu]", "quantize: {metod: mse}", ("build.yaml:5: quantize.metod", "did you mean 'method'?")),
        ("targets: [cpu]", "quantize: {method: entrpy}", ("build.yaml:5", "did you mean 'entropy'?")),
        ("targets: [cpu]", "measure: {seconds: long}", ("build.yaml:5: measure.seconds", "valid number")),
        ("targets: [cpu]", "gates: [0.9]", ("build.yaml:5: gates",)),
        ("targets: [cpu]", "metric: [topp1]", ("there is no metric 'topp1'", "top1")),
        ("targets: [cpu]", "metric: ['nowhere:share']", ("nowhere",)),
        ("targets: [cpu]", "recover: {epochs: 1}", ("recover: nothing is cut", "add a section prune")),
        ("targets: [cpu]", "recover: {precision: fp16}", ("recover.precision", "did you mean '16-mixed'?")),
        ("[cpu]", "[rtx-4090:fp16]", ("build.yaml:5", "did you mean 'float'? It is FP16 on GPUs")),
        ("targets: [cpu]", "prune: {mac: 0.5}", ("build.yaml:5: prune.mac", "did you mean 'macs'?")),
        ("targets: [cpu]", "prune: {macs: 30}", ("build.yaml:5: prune.macs", "less than 1")),
        ("targets: [cpu]", "prune: {multiple: 8}", ("build.yaml:5: prune", "none is there")),
        ("targets: [cpu]", "prune: {macs: 0.5, importance: ob}", ("build.yaml:5: prune.importance", "mean 'obs'?")),
        ("targets: [cpu]", "prune: {plan: plan.json}", ("plan.json", "no such plan")),
        ("[cpu]", "[rtx-4900]", ("there is no target 'rtx-4900'", "did you mean", "rtx-4090")),
        ("[cpu]", "[cpu", ("build.yaml:", "this is not YAML")),
        ("name: bad", "name: ../bad", ("build.yaml:1: name",)),
        ("name: bad", "", ("the key 'name' is needed", "add `name: ...`")),
        ("name: bad", "name: ${NO_SUCH_NAME}", ("NO_SUCH_NAME", "build.yaml:1")),
        ("samples.npz", "smples.npz", ("no such file or folder", "smples.npz", "--data")),
        ("small.onnx", "smal.onnx", ("no such model file", "smal.onnx")),
        ("model: ", "model: no_such_module:model #", ("there is no module 'no_such_module'",)),
    ],
)
def test_config(small, tmp_path, old, new, words):
    text = CONFIG.format(model=small.model, data=small.data)
    assert old in text
    (tmp_path / "build.yaml").write_text(text.replace(old, new, 1))
    refused(tmp_path, USAGE, words, "build", "build.yaml", "--store", "store")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--until", "quantise"), ("there is no stage 'quantise'", "--until", "quantize")),
        (("--target", "jetsn"), ("there is no target 'jetsn'", "trtcompress targets")),
        (("--set", "gates.min_cosin=1"), ("unknown key 'min_cosin'", "did you mean 'min_cosine'?")),
        (("--set", "gates"), ("gates", "key=value")),
        (("--set", "model.inputs={x: {batch: [8, 4, 1]}}"), ("1 <= min <= opt <= max",)),
        (("--set", "model.inputs={y: {batch: [1, 2, 4]}}"), ("no input 'y'", "x")),
        (("--set", "model.inputs={x: {width: [1, 2, 4]}}"), ("no dynamic axis 'width'", "batch")),
        (("--set", "targets=[turing]"), ("there is no target 'turing'",)),
    ],
)
def test_options_of_build(small, tmp_path, more, words):
    refused(tmp_path, USAGE, words, "build", small.model, "--data", small.data, "--store", "store", *more)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("build", "none.yaml"), ("none.yaml", "no such config file")),
        (("build", "none.onnx", "--data", "d.npz"), ("none.onnx", "no such model file")),
        (("build", "net.pt", "--data", "d.npz"), ("net.pt", "neither a config", "package.module:function")),
        (("build", "{model}"), ("data", "--data")),
        (("inspect", "none.onnx"), ("none.onnx", "no such file")),
        (("simplify", "none.onnx", "-o", "o.onnx"), ("none.onnx", "no such file")),
        (("calibrate", "{model}", "--data", "none.npz", "-o", "r.json"), ("none.npz", "no such file")),
        (("calibrate", "{model}", "--data", "nowhere:some", "-o", "r.json"), ("nowhere",)),
        (("prune", "none.onnx", "--macs", "0.5", "-o", "o.onnx"), ("none.onnx", "no such file")),
        (("prune", "{model}", "-o", "o.onnx"), ("exactly one of macs, params, speedup and plan", "--macs 0.7")),
        (("prune", "{model}", "--macs", "0.5", "--params", "0.5", "-o", "o.onnx"), ("macs and params are there",)),
        (("prune", "{model}", "--macs", "0", "-o", "o.onnx"), ("--macs", "0.0 is not in the range 0<x<1")),
        (("prune", "{model}", "--macs", "nan", "-o", "o.onnx"), ("--macs", "less than 1")),
        (("prune", "{model}", "--params", "1", "-o", "o.onnx"), ("--params", "1.0 is not in the range 0<x<1")),
        (("prune", "{model}", "--speedup", "1", "-o", "o.onnx"), ("--speedup", "1.0 is not in the range x>1")),
        (("prune", "{model}", "--speedup", "inf", "-o", "o.onnx"), ("--speedup", "finite")),
        (("prune", "{model}", "--macs", "0.5", "--multiple", "0", "-o", "o.onnx"), ("--multiple",)),
        (("prune", "{model}", "--macs", "0.5", "--depth", "0", "-o", "o.onnx"), ("--depth",)),
        (("prune", "{model}", "--macs", "0.5", "--keep", "nothing.*", "-o", "o.onnx"), ("nothing.*",)),
        (("prune", "{model}", "--macs", "0.5", "--importance", "obs", "-o", "o.onnx"), ("obs", "--data")),
        (("prune", "{model}", "--macs", "0.5", "--data", "none.npz", "-o", "o.onnx"), ("none.npz", "no such file")),
        (("prune", "{model}", "--macs", "0.5", "--axis", "x.width=8", "-o", "o.onnx"), ("no dynamic axis 'width'",)),
        (("prune", "{model}", "--macs", "0.5", "-o", "no/o.onnx"), ("no such folder to write into", "mkdir -p no")),
        (("prune", "{model}", "--macs", "0.5", "--plan", "no/p.json", "-o", "o.onnx"), ("mkdir -p no",)),
        (("prune", "{model}", "--macs", "0.5", "--plan", "o.onnx", "-o", "o.onnx"), ("--plan o.onnx", "written")),
        (
            ("prune", "{model}", "--macs", "0.5", "--plan", "{model}", "-o", "o.onnx"),
            ("--plan", "the model that is read"),
        ),
        (("prune", "{model}", "--plan", "none.json", "-o", "o.onnx"), ("no such plan", "none.json", "--plan")),
        (("prune", "{model}", "--plan", "p.json", "--keep", "c*", "-o", "o.onnx"), ("the plan has decided already",)),
        (
            ("calibrate", "{model}", "--data", "{data}", "--target", "rtx-409", "-o", "r.json"),
            ("did you mean rtx-4090?",),
        ),
        (("simplify", "{model}", "--fix", "x=1", "--fix", "x=2", "-o", "o.onnx"), ("'x' is there twice", "--fix")),
        (("quantize", "{model}", "--ranges", "none.json", "-o", "o.onnx"), ("none.json", "trtcompress calibrate")),
        (("quantize", "{model}", "--ranges", "{ranges}", "--target", "cpux", "-o", "o.onnx"), ("no target 'cpux'",)),
        (("compile", "{model}", "--target", "rtx-4190", "-o", "e"), ("no target 'rtx-4190'", "did you mean")),
        (("compile", "{model}", "--axis", "x.batch=8,4,1", "-o", "e"), ("--axis", "MIN <= OPT <= MAX")),
        (("compile", "{model}", "--axis", "batch", "-o", "e"), ("--axis x.batch=1,8,16",)),
        (("compile", "{model}", "--target", "rtx-4090", "--axis", "y.batch=1", "-o", "e"), ("no input 'y'",)),
        (("validate", "none", "--reference", "{model}", "--data", "{data}"), ("none", "trtcompress compile")),
        (("validate", "{model}", "--reference", "none.onnx", "--data", "{data}"), ("none.onnx", "no such file")),
        (("validate", "{model}", "--reference", "{model}", "--data", "{data}", "--metric", "topp"), ("'topp'", "top1")),
        (("validate", "{model}", "--reference", "{model}", "--data", "{data}", "--min-cosine", "2"), ("--min-cosine",)),
        (("validate", "{model}", "--reference", "{model}", "--data", "{data}", "--seconds", "0"), ("--seconds",)),
        (("package", "none", "-o", "r"), ("not a build folder", "none", "trtcompress build")),
        (("package", "{built}", "--target", "rtx-4090", "-o", "r"), ("no target 'rtx-4090'", "cpu")),
        (("export", "no_module:model", "-o", "o.onnx"), ("no_module",)),
        (("export", "not-a-name", "-o", "o.onnx"), ("not-a-name",)),
        (("cache", "gc", "--store", "store", "--max-size", "much"), ("--max-size", "much")),
    ],
)
def test_arguments(small, tmp_path, args, words):
    places = {
        "model": small.model,
        "data": small.data,
        "ranges": small.folder / "ranges.json",
        "built": small.folder / "built",
    }
    store = ("--store", "store") if args[0] == "build" else ()
    refused(tmp_path, USAGE, words, *(arg.format(**places) for arg in args), *store)


# --- models


def saved(path: Path, nodes, inputs, outputs, weights=(), opset: int = 18, domains=()) -> Path:
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), path)
    return path


def value(name: str, kind: int = TensorProto.FLOAT, shape=("batch", 4)):
    return helper.make_tensor_value_info(name, kind, list(shape))


def truncated(path: Path, small: Small) -> None:
    data = small.model.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def random_bytes(path: Path, small: Small) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5000))


def empty(path: Path, small: Small) -> None:
    path.write_bytes(b"")


def external_outside(path: Path, small: Small) -> None:
    secret = path.parent / "secret.bin"
    secret.write_bytes(np.ones(4, "f4").tobytes())
    inner = path.parent / "inner"
    inner.mkdir()
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../secret.bin")
    saved(inner / path.name, [helper.make_node("Add", ["x", "w"], ["y"])], [value("x")], [value("y")], [weight])
    shutil.move(inner / path.name, path)
    inner.rmdir()


def missing_domain(path: Path, small: Small) -> None:
    node = helper.make_node("Gelu", ["x"], ["y"], name="act", domain="com.microsoft")
    saved(path, [node], [value("x")], [value("y")])


def unknown_operator(path: Path, small: Small) -> None:
    node = helper.make_node("MyOwn", ["x"], ["y"], name="mine", domain="my.domain")
    saved(path, [node], [value("x")], [value("y")], domains=["my.domain"])


def text_input(path: Path, small: Small) -> None:
    node = helper.make_node("Identity", ["x"], ["y"])
    saved(path, [node], [value("x", TensorProto.STRING)], [value("y", TensorProto.STRING)])


def old_opset(path: Path, small: Small) -> None:
    saved(path, [helper.make_node("Relu", ["x"], ["y"])], [value("x")], [value("y")], opset=7)


class Evil:
    def __reduce__(self):
        return (open, (str(Path("ran").absolute()), "w"))


def pickled(path: Path, small: Small) -> None:
    path.write_bytes(pickle.dumps({"model": Evil()}))


MODELS: dict[Callable[[Path, Small], None], tuple[str, ...]] = {
    truncated: ("not an ONNX", "m.onnx"),
    random_bytes: ("not an ONNX", "m.onnx"),
    empty: ("the file is empty", "export the model again"),
    external_outside: ("'../secret.bin' lies outside the model's folder", "'w'"),
    missing_domain: ("does not import the operator domain 'com.microsoft'", "node 'act'"),
    unknown_operator: ("unknown operator 'MyOwn'", "node 'mine'"),
    text_input: ("type string", "input 'x'"),
    old_opset: ("opset 7 is older than 9",),
    pickled: ("this is a PyTorch file", "state dict"),
}


@pytest.mark.parametrize("make", MODELS, ids=lambda make: make.__name__)
@pytest.mark.parametrize(
    "args",
    [
        ("build", "m.onnx", "--data", "{data}", "--store", "store"),
        ("inspect", "m.onnx"),
        ("inspect", "m.onnx", "--groups"),
        ("prune", "m.onnx", "--macs", "0.5", "-o", "out.onnx"),
        ("simplify", "m.onnx", "-o", "out.onnx"),
        ("calibrate", "m.onnx", "--data", "{data}", "-o", "out.json"),
        ("quantize", "m.onnx", "--ranges", "{ranges}", "-o", "out.onnx"),
        ("compile", "m.onnx", "-o", "out"),
        ("validate", "{model}", "--reference", "m.onnx", "--data", "{data}"),
        ("validate", "m.onnx", "--reference", "{model}", "--data", "{data}"),
    ],
    ids=lambda args: " ".join(args[:3]),
)
def test_models(small, tmp_path, make, args):
    make(tmp_path / "m.onnx", small)
    places = {"data": small.data, "model": small.model, "ranges": small.folder / "ranges.json"}
    refused(tmp_path, UNUSABLE, (*MODELS[make], "hint: "), *(arg.format(**places) for arg in args))
    assert not (tmp_path / "ran").exists(), "no code of the file was run"


def test_a_pickled_module_in_a_config(small, tmp_path):
    (tmp_path / "net.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "build.yaml").write_text(f"name: p\nmodel: net.pt\ndata: {{calibration: {small.data}}}\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(tmp_path, UNUSABLE, ("net.pt", "--trust-pickle"), "build", "build.yaml", "--store", "store")
    assert not (tmp_path / "ran").exists()


# --- pruning


def test_a_budget_that_cannot_be_met(small, tmp_path):
    words = ("can be cut", "0.001", "an output of the model keeps its meaning", "hint: ")
    refused(tmp_path, FAILED, words, "prune", small.model, "--macs", "0.001", "-o", "o.onnx")


def test_a_model_that_is_quantized_already_is_not_pruned(small, tmp_path):
    quantized = small.folder / "quantized.onnx"
    done("quantize", small.model, "--ranges", small.folder / "ranges.json", "-o", quantized)
    words = ("quantized", str(quantized), "hint: ")
    refused(tmp_path, UNUSABLE, words, "prune", quantized, "--macs", "0.5", "-o", "o.onnx")


def test_plans_that_do_not_fit(small, tmp_path):
    plan, cut = tmp_path / "plan.json", ("--macs", "0.48", "--multiple", "1", "--data", small.data)
    done("prune", small.model, *cut, "--plan", plan, "-o", tmp_path / "pruned.onnx")
    again = ("--plan", plan, "-o", "o.onnx")
    refused(tmp_path, UNUSABLE, ("sample", "hint: "), "prune", small.model, *again)
    with np.load(small.data) as arrays:
        np.savez(tmp_path / "other.npz", x=arrays["x"] + 1)
    refused(tmp_path, UNUSABLE, ("sample",), "prune", small.model, *again, "--data", "other.npz")
    refused(tmp_path, UNUSABLE, ("another model",), "prune", tmp_path / "pruned.onnx", *again, "--data", small.data)
    whole = plan.read_text()
    for text in (whole[: len(whole) // 2], whole.replace('"groups"', '"grups"'), "null"):
        plan.write_text(text)
        refused(tmp_path, UNUSABLE, ("not a prune plan", str(plan), "hint: "), "prune", small.model, *again)
    plan.write_text(whole.replace('"version": 1', '"version": 2'))
    refused(tmp_path, UNUSABLE, ("a plan of version 2",), "prune", small.model, *again)


def test_a_dynamic_axis_without_a_range(small, tmp_path):
    words = ("'batch' of x", "hint: ", "--axis x.batch=1,8,16")
    refused(tmp_path, USAGE, words, "compile", small.model, "--target", "rtx-4090", "-o", "engine")
    (tmp_path / "build.yaml").write_text(CONFIG.format(model=small.model, data=small.data))
    build = ("build", "build.yaml", "--target", "rtx-4090", "--store", "store")
    refused(tmp_path, USAGE, (*words, "--set 'model.inputs.x.batch=[1, 8, 16]'"), *build)


NETWORKS = {
    "raises": ("def model():\n    raise KeyError('weights')\n", UNUSABLE, ("KeyError", "weights")),
    "no_module": ("def model():\n    return 1, 2\n", UNUSABLE, ("not a torch.nn.Module",)),
    "nothing": ("def model():\n    return None\n", UNUSABLE, ("returned NoneType",)),
    "syntax": ("def model(:\n", USAGE, ("SyntaxError",)),
    "other": ("def modell():\n    return None\n", USAGE, ("no function 'model'", "modell")),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_functions_of_the_user(tmp_path, kind):
    text, code, words = NETWORKS[kind]
    (tmp_path / f"bad_network_{kind}.py").write_text(text)
    ran = trtcompress("export", f"bad_network_{kind}:model", "-o", "out.onnx", cwd=tmp_path)
    assert ran.code == code, ran.err
    assert all(word in ran.err for word in words)
    assert "Traceback" not in ran.err
    assert not (tmp_path / "out.onnx").exists()


# --- data


X = np.zeros((4, 3, 16, 16), np.float32)


def holding(number: float) -> np.ndarray:
    x = X.copy()
    x[2, 1, 3, 4] = number
    return x


ARRAYS: dict[str, tuple[dict[str, np.ndarray], tuple[str, ...]]] = {
    "missing input": ({"labels": np.arange(4)}, ("no array for the input 'x'",)),
    "misnamed input": ({"X": X}, ("no array for the input 'x'; it has 'X'", "rename 'X' to 'x'")),
    "wrong length": ({"x": X[..., :8]}, ("axis 3 is 8 long", "[batch, 3, 16, 16]")),
    "channels last": ({"x": X.transpose(0, 2, 3, 1)}, ("NHWC", "transpose")),
    "wrong rank": ({"x": X[:, 0, 0]}, ("wrong rank", "[batch, 3, 16, 16]")),
    "wrong type": ({"x": X.astype(str)}, ("'x'",)),
    "complex": ({"x": X.astype(np.complex64)}, ("complex64", "float32")),
    "too great": ({"x": np.full_like(X, 1e300, dtype=np.float64)}, ("do not fit into float32",)),
    "NaN": ({"x": holding(np.nan)}, ("the data holds NaN", "sample 2", "[0, 1, 3, 4]")),
    "infinity": ({"x": holding(-np.inf)}, ("the data holds infinity", "sample 2")),
    "no samples": ({"x": X[:0]}, ("there are no samples",)),
    "other count of labels": ({"x": X, "labels": np.arange(3)}, ("'x' has 4", "'labels' has 3")),
    "objects": ({"x": np.array([{}] * 4)}, ("'x'",)),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize(
    "args",
    [
        ("build", "{model}", "--data", "d.npz", "--store", "store"),
        ("prune", "{model}", "--macs", "0.5", "--data", "d.npz", "-o", "o.onnx"),
        ("calibrate", "{model}", "--data", "d.npz", "-o", "r.json"),
        ("validate", "{model}", "--reference", "{model}", "--data", "d.npz"),
    ],
    ids=lambda args: args[0],
)
def test_arrays(small, tmp_path, kind, args):
    arrays, words = ARRAYS[kind]
    np.savez(tmp_path / "d.npz", **arrays)
    refused(tmp_path, UNUSABLE, (*words, "d.npz", "hint: "), *(arg.format(model=small.model) for arg in args))


@pytest.mark.parametrize("name", ["d.npz", "d.npy", "d.txt"])
def test_files_that_are_no_data(small, tmp_path, name):
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(50))
    refused(tmp_path, UNUSABLE, (name,), "calibrate", small.model, "--data", name, "-o", "r.json")


def test_a_truncated_npz(small, tmp_path):
    (tmp_path / "d.npz").write_bytes(small.data.read_bytes()[:-2000])
    refused(tmp_path, UNUSABLE, ("d.npz",), "calibrate", small.model, "--data", "d.npz", "-o", "r.json")


def test_an_empty_folder(small, tmp_path):
    (tmp_path / "folder").mkdir()
    refused(tmp_path, UNUSABLE, ("folder",), "calibrate", small.model, "--data", "folder", "-o", "r.json")


def test_lengths_that_do_not_belong_together(tmp_path):
    encoder(tmp_path / "m.onnx")
    np.savez(tmp_path / "d.npz", ids=np.ones((3, 5), np.int64), mask=np.ones((3, 4), np.float32))
    words = ("the axis 'sequence' has length 4 here, but 5 in the input 'ids'",)
    refused(tmp_path, UNUSABLE, words, "calibrate", "m.onnx", "--data", "d.npz", "-o", "r.json")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise RuntimeError('no disk')", ("the function failed: RuntimeError: no disk",)),
        ("return 5", ("gives int",)),
        ("return {'x': 1}", ("gives dict", "yield")),
        ("yield [1]", ("yields list",)),
        ("yield {}", ("no array for the input 'x'; it has nothing",)),
        ("return iter(())", ("there are no samples",)),
    ],
)
def test_functions_that_give_no_data(small, tmp_path, body, words):
    name = f"bad_data_{abs(hash(body))}"
    (tmp_path / f"{name}.py").write_text(f"def some():\n    {body}\n")
    ran = trtcompress("calibrate", small.model, "--data", f"{name}:some", "-o", "r.json", cwd=tmp_path)
    assert ran.code == UNUSABLE, ran.err
    assert all(word in ran.err for word in (*words, f"{name}:some"))
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize("command", ["build", "validate"])
def test_labels_missing_for_a_metric(small, tmp_path, command):
    np.savez(tmp_path / "d.npz", x=holding(1.0))
    more = {
        "build": ("--store", "store", "--set", "metric=top1", "--set", "measure.seconds=0.01"),
        "validate": ("--reference", small.model, "--metric", "top1"),
    }
    words = ("the metric 'top1' needs labels", "d.npz", "add an array `labels`")
    refused(tmp_path, UNUSABLE, words, command, small.model, "--data", "d.npz", *more[command])


@pytest.mark.parametrize("command", ["build", "validate"])
def test_a_metric_of_an_output_that_is_not_there(small, tmp_path, command):
    """A build that cuts tells it before it cuts."""
    np.savez(tmp_path / "d.npz", x=holding(1.0), labels=np.zeros(len(holding(1.0)), np.int64))
    more = {
        "build": (
            "--store",
            "store",
            "--set",
            "metric=top1:scorse",
            "--set",
            "prune={macs: 0.9}",
            "--until",
            "samples",
        ),
        "validate": ("--reference", small.model, "--metric", "top1:scorse"),
    }
    words = ("metric 'top1:scorse': the model has no output 'scorse'", "hint: it has: ")
    ran = refused(tmp_path, 2, words, command, small.model, "--data", "d.npz", *more[command])
    assert " samples\n" not in ran.err, "none ran"


# --- what commands wrote


def test_ranges_of_another_model(small, tmp_path):
    encoder(tmp_path / "other.onnx")
    args = ("quantize", "other.onnx", "--ranges", small.folder / "ranges.json", "-o", "o.onnx")
    refused(tmp_path, UNUSABLE, ("measured on another model", "trtcompress calibrate other.onnx"), *args)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"version": 1}', "{", '{"version": 9, "model_sha256": "", "tensors": {}}']
)
def test_damaged_ranges(small, tmp_path, text):
    (tmp_path / "r.json").write_text(text)
    args = ("quantize", small.model, "--ranges", "r.json", "-o", "o.onnx")
    refused(tmp_path, UNUSABLE, ("r.json", "trtcompress calibrate"), *args)


def test_a_range_that_is_no_number(small, tmp_path):
    ranges = json.loads((small.folder / "ranges.json").read_text())
    ranges["tensors"]["x"]["max"] = float("nan")
    (tmp_path / "r.json").write_text(json.dumps(ranges))
    refused(tmp_path, UNUSABLE, ("'x'",), "quantize", small.model, "--ranges", "r.json", "-o", "o.onnx")


def damage_note(folder: Path) -> None:
    (folder / "engine.json").write_text('{"path": ')


def damage_shape(folder: Path) -> None:
    (folder / "engine.json").write_text("[1, 2]")


def lead_outside(folder: Path) -> None:
    note = json.loads((folder / "engine.json").read_text())
    note["graph"]["path"] = {"$path": "../../../../etc/passwd"}
    (folder / "engine.json").write_text(json.dumps(note))


def other_graph(folder: Path) -> None:
    encoder(folder / "model.onnx")


def damage_graph(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"no model")


def damage_engine(folder: Path) -> None:
    """The graph is whole, what runs is not."""
    [engine] = folder.glob("*.optimized.onnx")
    shutil.copyfile(folder / "model.onnx", engine)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damage_engine, ("not the engine that was built", "optimized.onnx")),
        (damage_note, ("engine.json", "damaged", "trtcompress compile")),
        (damage_shape, ("engine.json", "damaged", "trtcompress compile")),
        (lead_outside, ("outside its folder", "engine.json")),
        (other_graph, ("not the graph that was built", "model.onnx")),
        (damage_graph, ("model.onnx",)),
    ],
)
def test_damaged_engine_folders(small, tmp_path, damage, words):
    shutil.copytree(small.folder / "engine", tmp_path / "engine")
    damage(tmp_path / "engine")
    refused(tmp_path, UNUSABLE, words, "validate", "engine", "--reference", small.model, "--data", small.data)


def test_an_engine_that_is_gone(small, tmp_path):
    shutil.copytree(small.folder / "engine", tmp_path / "engine")
    (tmp_path / "engine" / "model.onnx").unlink()
    args = ("validate", "engine", "--reference", small.model, "--data", small.data)
    refused(tmp_path, USAGE, ("the engine is incomplete", "model.onnx"), *args)


@pytest.mark.parametrize(
    ("name", "text", "code", "words"),
    [
        ("report.json", "{", USAGE, ("not a build folder",)),
        ("report.json", '{"validations": [{"target": "../..", "shipped": "x"}]}', USAGE, ("engine",)),
        ("manifest.json", "{}", USAGE, ("manifest", "build it again")),
        ("manifest.json", "", USAGE, ("manifest", "build it again")),
        ("engines/cpu/cpu-fp32/engine.json", "{", UNUSABLE, ("engine.json", "damaged")),
    ],
)
def test_damaged_build_folders(small, tmp_path, name, text, code, words):
    shutil.copytree(small.folder / "built", tmp_path / "built")
    (tmp_path / "built" / name).write_text(text)
    refused(tmp_path, code, words, "package", "built", "-o", "repository")
    assert not (tmp_path / "repository").exists()


@pytest.mark.parametrize(
    "args",
    [
        ("simplify", "{bad}", "-o", "out"),
        ("calibrate", "{bad}", "--data", "{data}", "-o", "out"),
        ("quantize", "{bad}", "--ranges", "{ranges}", "-o", "out"),
    ],
    ids=lambda args: args[0],
)
def test_what_was_there_stays(small, tmp_path, args):
    (tmp_path / "out").write_text("of yesterday")
    random_bytes(tmp_path / "bad.onnx", small)
    places = {"bad": "bad.onnx", "data": small.data, "ranges": small.folder / "ranges.json"}
    refused(tmp_path, UNUSABLE, ("bad.onnx",), *(arg.format(**places) for arg in args))


def test_an_output_that_cannot_be_one(small, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("a file")
    refused(tmp_path, USAGE, ("'folder' is a directory",), "simplify", small.model, "-o", "folder")
    refused(tmp_path, USAGE, ("'file' is a file",), "compile", small.model, "-o", "file")
    refused(tmp_path, FAILED, ("cannot write here", "file"), "simplify", small.model, "-o", "file/m.onnx")
    refused(tmp_path, USAGE, ("no such folder", "mkdir -p new/er"), "simplify", small.model, "-o", "new/er/m.onnx")
