"""Each command alone, on files, one after another; and the options of build."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from command_chain import TARGETS, Chain, chain
from command_line import done, trtcompress
from small_builds import QUICK, Small, answers, small_classifier, tree


@pytest.fixture(scope="module")
def made() -> Chain:
    return chain()


def operators(path: Path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


# --- the chain


def test_export_gives_pytorch_s_answers_under_the_names_of_the_network(made):
    told = made.ran["export"].json
    assert told["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 1, 8, 8]}]
    assert [output["name"] for output in told["outputs"]] == ["logits"]
    weights = {w.name for w in onnx.load(made.folder / "exported.onnx").graph.initializer}
    assert "fc.bias" in weights
    with np.load(made.folder / "samples.npz") as samples:
        given = answers(made.folder / "exported.onnx", x=samples["x"]).argmax(1)
        assert np.array_equal(given, samples["labels"])


def test_export_compares_with_pytorch_on_real_samples(made, tmp_path):
    out = tmp_path / "m.onnx"  # without --axis its batch is fixed: samples are put together
    done("export", "chain_network:model", "--data", "samples.npz", "-o", out, cwd=made.folder)
    wrong = tmp_path / "wrong.npz"
    np.savez(wrong, y=np.zeros((2, 1, 8, 8), np.float32))
    ran = trtcompress("export", "chain_network:model", "--data", wrong, "-o", tmp_path / "n.onnx", cwd=made.folder)
    assert ran.code == 3
    assert "rename 'y' to 'x'" in ran.err
    assert [p.name for p in tmp_path.iterdir() if p.suffix == ".onnx"] == ["m.onnx"]


def test_inspect_counts(made):
    told = made.ran["inspect"].json
    macs = 16 * 9 * 64 + 16 * 64 * 10
    assert (told["macs"], told["shapes"]) == (macs, {"x": [1, 1, 8, 8]})
    assert told["parameters"] == 16 * 9 + 16 + 16 * 64 * 10 + 10
    assert {o["op"] for o in told["operators"]} >= {"Conv", "Relu"}
    assert told["heaviest"][0]["macs"] == 16 * 64 * 10
    assert (told["quantizable_nodes"], told["quantizable_macs"], told["quantized_already"]) == (2, 1.0, [])


def test_inspect_in_words(made):
    ran = done("inspect", "simple.onnx", cwd=made.folder)
    assert "batch x 1 x 8 x 8" in ran.out
    assert "MB for x 1 x 1 x 8 x 8" in ran.out, "what the costs are for"
    assert "can be quantized: 2 nodes, 100.0 % of the MACs" in ran.out
    quantized = done("inspect", "cpu.onnx", cwd=made.folder)
    assert "already quantized" in quantized.err


def test_inspect_takes_lengths(made):
    told = done("inspect", "simple.onnx", "--axis", "x.batch=4", "--json", cwd=made.folder).json
    assert told["macs"] == 4 * made.ran["inspect"].json["macs"]


def test_ranges_file_is_the_documented_one(made):
    ranges = json.loads((made.folder / "ranges.json").read_text())
    assert ranges.keys() == {"version", "model_sha256", "method", "samples", "tensors"}
    assert (ranges["method"], ranges["samples"]) == ("mse", 40)
    assert ranges["model_sha256"] == made.ran["simplify"].json["sha256"]
    keys = {"min", "max", "threshold", "clipped", "method", "samples", "bulk"}
    assert all(held.keys() == keys for held in ranges["tensors"].values())
    with np.load(made.folder / "samples.npz") as samples:
        assert ranges["tensors"]["x"]["max"] == pytest.approx(samples["x"].max())


def test_samples_and_method_count(made, tmp_path):
    done(
        *("calibrate", "simple.onnx", "--data", "samples.npz", "--method", "minmax", "--samples", 5),
        *("-o", tmp_path / "r.json"),
        cwd=made.folder,
    )
    ranges = json.loads((tmp_path / "r.json").read_text())
    assert (ranges["method"], ranges["samples"]) == ("minmax", 5)


@pytest.mark.parametrize(("target", "activations"), [("cpu", np.uint8), ("rtx-4090", np.int8)])
def test_quantize_writes_the_encoding_of_the_target(made, target, activations):
    model = onnx.load(made.folder / f"{target}.onnx")
    zero_points = {w.name: onnx.numpy_helper.to_array(w) for w in model.graph.initializer}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert pairs
    assert {zero_points[node.input[2]].dtype.type for node in pairs} == {activations}
    if target != "cpu":
        assert all(not zero_points[node.input[2]].any() for node in pairs)


def test_a_calibration_cache_is_written_and_gives_the_same_graph(made, tmp_path):
    cache, out = tmp_path / "calibration.cache", tmp_path / "q.onnx"
    wanted = ("quantize", "simple.onnx", "--target", "jetson-agx-orin", "-o", out)
    done(*wanted, "--ranges", "ranges.json", "--cache", cache, "--tensorrt", "8.5.2", cwd=made.folder)
    first = out.read_bytes()
    assert cache.read_text().startswith("TRT-8502-EntropyCalibration2\n")
    done(*wanted, "--ranges", cache, cwd=made.folder)
    assert out.read_bytes() == first
    for bad in ("11.0", "new"):
        ran = trtcompress(*wanted, "--ranges", "ranges.json", "--cache", cache, "--tensorrt", bad, cwd=made.folder)
        assert ran.code == 2
        assert "8.6.1" in ran.err
    ran = trtcompress(
        *("quantize", "simple.onnx", "--ranges", "ranges.json", "--cache", cache, "-o", out), cwd=made.folder
    )
    assert ran.code == 2
    assert "not symmetric" in ran.err


def test_sensitivity_ranks_nodes_and_tensors(made):
    told = made.ran["sensitivity"].json
    assert told["outputs"] == ["logits"]
    assert told["samples"] == 4
    for kind in ("nodes", "tensors"):
        damages = [each["damage"] for each in told[kind]]
        assert damages == sorted(damages, reverse=True)
        assert all(damage > 0 for damage in damages)
    assert {each["kind"] for each in told["tensors"]} == {"activation", "weight"}
    shown = done("sensitivity", "simple.onnx", "--data", "samples.npz", cwd=made.folder)
    assert all(each["name"] in shown.out for each in (*told["nodes"], *told["tensors"]))


@pytest.mark.parametrize(("limit", "quantized"), [("1", True), ("0", False)])
def test_nodes_stay_float_as_far_as_the_drop_asks_for(made, tmp_path, limit, quantized):
    with np.load(made.folder / "samples.npz") as arrays:
        np.savez(tmp_path / "unlabelled.npz", x=arrays["x"])
    asked = ("--max-drop", limit, "--data", tmp_path / "unlabelled.npz", "-o", tmp_path / "q.onnx")
    ran = done("quantize", "simple.onnx", "--ranges", "ranges.json", *asked, cwd=made.folder)
    assert ("QuantizeLinear" in operators(tmp_path / "q.onnx")) == quantized
    assert ("INT8 is not worth it here" in ran.err) != quantized
    assert ("times that of the float model at batch size 1, on this CPU" in ran.err) == quantized


def test_no_drop_is_kept_from_a_reference_that_guesses(made, tmp_path):
    with np.load(made.folder / "samples.npz") as arrays:
        np.savez(tmp_path / "wrong.npz", x=arrays["x"], labels=(arrays["labels"] + 1) % 10)
    for data, code in ((tmp_path / "wrong.npz", 1), ("samples.npz", 0)):
        asked = ("--max-drop", "0.5", "--data", data, "--metric", "top1", "-o", tmp_path / "q.onnx")
        ran = trtcompress("quantize", "simple.onnx", "--ranges", "ranges.json", *asked, cwd=made.folder)
        assert (ran.code, "FAILED --max-drop 0.5: top1 of the reference itself is 0" in ran.err) == (code, bool(code))


def test_a_drop_needs_samples_to_be_measured_on(made, tmp_path):
    for lone in (("--max-drop", "0.1"), ("--data", "samples.npz")):
        ran = trtcompress(
            *("quantize", "simple.onnx", "--ranges", "ranges.json", *lone, "-o", tmp_path / "q.onnx"), cwd=made.folder
        )
        assert ran.code == 2
        assert "--max-drop" in ran.err
        assert "--data" in ran.err


def test_skipped_nodes_stay_float(made, tmp_path):
    for skip, wanted in (((), 2), (("--skip", "*"), 0)):
        ran = done(
            *("quantize", "simple.onnx", "--ranges", "ranges.json", *skip, "-o", tmp_path / "q.onnx"), cwd=made.folder
        )
        assert f"{wanted} in int8" in ran.err or wanted
    assert "QuantizeLinear" not in operators(tmp_path / "q.onnx")


def test_compiled_folders_hold_an_engine(made):
    cpu, rtx = (made.ran[f"compile {target}"].json for target in TARGETS)
    assert (cpu["backend"], cpu["built"], cpu["reproducible"]) == ("onnxruntime", True, True)
    assert (rtx["backend"], rtx["built"], rtx["reproducible"]) == ("tensorrt_rtx", True, False)
    for told in (cpu, rtx):
        engine = made.folder / told["engine"]
        assert engine.stat().st_size == told["size_bytes"]
        assert (engine.parent / "engine.json").is_file()
    assert {p.suffix for p in (made.folder / "engine-rtx-4090").iterdir()} == {".onnx", ".plan", ".json", ".py", ".sh"}


def test_validate_measures_what_runs_here(made):
    told = made.ran["validate cpu"].json
    assert (told["verdict"], told["emulated"], told["metrics"]["top1"]["reference"]) == ("pass", False, 1.0)
    assert [speed["batch"] for speed in told["speeds"]] == [1, 4, 8]
    assert told["outputs"][0]["output"] == "logits"
    assert 0.9 < told["outputs"][0]["cosine"] <= 1


def test_validate_emulates_what_does_not(made):
    told = made.ran["validate rtx-4090"].json
    assert (told["verdict"], told["emulated"], told["speeds"]) == ("not_measured", True, [])
    verdicts = {gate["gate"]: gate["verdict"] for gate in told["gates"]}
    assert verdicts["max_metric_drop:top1"] == "not_measured"
    assert verdicts["max_metric_drop:top1[emulated]"] == "pass"


def test_package_serves_every_target_of_the_build(made):
    told = made.ran["package"].json
    assert [package["target"] for package in told["packages"]] == list(TARGETS)
    for package in told["packages"]:
        assert (made.folder / package["model"] / "config.pbtxt").is_file()
        assert Path(package["model"]).parent == Path(package["repository"])


def test_package_of_one_target_is_the_repository_itself(made, tmp_path):
    ran = done("package", "build/exported", "--target", "cpu", "-o", tmp_path / "r", cwd=made.folder)
    assert (tmp_path / "r" / "exported" / "config.pbtxt").is_file()
    assert ran.out == ""
    assert f"tritonserver --model-repository {tmp_path / 'r'}" in ran.err


def test_a_folder_is_compiled_anew_in_place(made, tmp_path):
    keep = tmp_path / "engine" / "notes.txt"
    keep.parent.mkdir()
    keep.write_text("mine")
    for model in ("simple.onnx", "cpu.onnx"):
        done("compile", model, "-o", tmp_path / "engine", cwd=made.folder)
    assert keep.read_text() == "mine"
    digest = json.loads((tmp_path / "engine" / "engine.json").read_text())["graph"]["digest"]
    assert digest == made.ran["quantize cpu"].json["sha256"]
    assert [p.name for p in tmp_path.iterdir()] == ["engine"]


# --- build


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    return small_classifier(tmp_path_factory.mktemp("small"))


def build(small: Small, folder: Path, *more: object):
    return trtcompress(
        *("build", small.model, "--data", small.data, "--out", folder / "build", "--store", small.folder / "store"),
        *(*QUICK, "--set", "gates={max_metric_drop: 0.3, min_cosine: 0.9}", *more),
    )


def test_build_says_what_it_does_in_plain_lines_and_prints_a_table(small, tmp_path):
    ran = build(small, tmp_path)
    assert ran.code == 0, ran.err
    assert "\x1b" not in ran.out + ran.err
    assert "[1/" in ran.err.replace(" ", "")
    assert f"build: {tmp_path}/build/small (report.md tells more)" in ran.err
    assert "small: pass" in ran.out
    assert "top1 1 → " in ran.out
    assert (tmp_path / "build/small/triton/cpu/small/config.pbtxt").is_file()


def test_rebuild_reuses_every_step(small, tmp_path):
    build(small, tmp_path)
    ran = build(small, tmp_path)
    steps = [line for line in ran.err.splitlines() if line.lstrip().startswith("[")]
    assert steps
    assert all(line.endswith("reused") for line in steps)


def test_quiet_prints_nothing(small, tmp_path):
    ran = build(small, tmp_path, "--quiet")
    assert (ran.code, ran.out, ran.err) == (0, "", "")


def test_quiet_json_prints_the_object_alone(small, tmp_path):
    ran = build(small, tmp_path, "--quiet", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["verdict"] == "pass"


def test_no_cache_works_anew_and_leaves_the_store_alone(small, tmp_path):
    build(small, tmp_path)
    before = tree(small.folder / "store")
    ran = build(small, tmp_path, "--no-cache")
    assert ran.code == 0, ran.err
    assert "reused" not in ran.err
    assert tree(small.folder / "store") == before


def test_jobs_do_not_change_the_result(small, tmp_path):
    digests = []
    for jobs in ((), ("--jobs", 4, "--no-cache")):
        ran = build(small, tmp_path / str(len(jobs)), *jobs, "--set", "targets=cpu:int8", "--json")
        digests.append([target["sha256"] for target in ran.json["targets"]])
    assert digests[0] == digests[1]


def test_dry_run_says_what_would_run_and_makes_nothing(small, tmp_path):
    store = ("--store", tmp_path / "store")
    fresh = build(small, tmp_path, *store, "--dry-run", "--json").json
    states = {step["step"]: step["state"] for step in fresh["steps"]}
    assert states["export"] == "run"
    assert set(states.values()) == {"run", "unknown"}
    assert not (tmp_path / "build").exists()
    build(small, tmp_path, *store)
    again = build(small, tmp_path, *store, "--dry-run", "--json").json
    assert {step["state"] for step in again["steps"]} == {"reuse"}
    other = build(small, tmp_path, *store, "--dry-run", "--set", "quantize.method=minmax")
    lines = dict(line.split(maxsplit=1) for line in other.out.splitlines() if line.startswith(("export", "calibrate")))
    assert lines == {"export": "reuse", "calibrate": "run"}


def test_until_stops_after_a_stage(small, tmp_path):
    ran = build(small, tmp_path, "--until", "calibrate", "--json")
    assert (ran.code, ran.json["verdict"], ran.json["targets"]) == (0, "not_measured", [])
    made = tree(tmp_path / "build/small")
    assert "ranges.json" in made
    assert not any(name.startswith(("engines", "triton", "models/cpu")) for name in made)
    assert build(small, tmp_path, "--until", "calibrate", "--strict").code == 1


def test_targets_and_keys_from_the_command_line(small, tmp_path):
    config = tmp_path / "build.yaml"
    config.write_text(f"name: other\nmodel: {small.model}\ndata: {{calibration: {small.data}}}\ntargets: [a100]\n")
    ran = trtcompress(
        *("build", config, "--target", "cpu", "--target", "4090", "--until", "quantize", "--json"),
        *("--out", tmp_path, "--store", small.folder / "store", "--set", "name=named", "--set", "quantize.method=mse"),
    )
    assert ran.code == 0, ran.err
    manifest = json.loads((tmp_path / "named" / "manifest.json").read_text())
    assert manifest["targets"] == ["cpu", "rtx-4090"]
    assert manifest["config"]["quantize"]["method"] == "mse"


def test_not_measured_exits_0_and_with_strict_1(small, tmp_path):
    more = ("--target", "rtx-4090", "--set", "model.inputs.x.batch=[1, 2, 4]")
    ran = build(small, tmp_path, *more, "--json")
    assert (ran.code, ran.json["verdict"]) == (0, "not_measured")
    assert build(small, tmp_path, *more, "--strict").code == 1


def test_a_failed_gate_exits_1_and_says_by_how_much(small, tmp_path):
    more = ("--set", "gates={max_size_mb: 0.001}", "--set", "targets=cpu:float")
    for flag in ("--json", "--quiet"):
        ran = build(small, tmp_path, *more, flag)
        assert ran.code == 1
        assert "FAILED cpu: max_size_mb: 0.0" in ran.err
        assert "above the limit of 0.001" in ran.err
    assert (tmp_path / "build/small/engines").is_dir(), "built all the same"
    assert "<failure" in (tmp_path / "build/small/junit.xml").read_text()


def test_a_function_of_the_working_folder_gives_data_for_a_model_elsewhere(small, tmp_path):
    (tmp_path / "cwd_samples.py").write_text(
        "import numpy as np\ndef some():\n    yield {'x': np.ones((4, 3, 16, 16), np.float32)}\n"
    )
    ran = trtcompress(
        *("build", small.model, "--data", "cwd_samples:some", "--until", "calibrate", "--quiet", "--out", "b"),
        *("--store", "s"),
        cwd=tmp_path,
    )
    assert ran.code == 0, ran.err
    assert (tmp_path / "b/small/ranges.json").is_file()


# --- the others


def test_targets_are_listed(made):
    table = done("targets")
    assert "GeForce RTX 4090" in table.out
    assert (table.err, "\x1b" in table.out) == ("", False)
    names = {target["name"] for target in done("targets", "--json").json["targets"]}
    assert {"cpu", "rtx-4090", "a100"} <= names


def test_doctor_tells_what_can_be_built():
    told = {finding["what"]: finding for finding in done("doctor", "--json").json["findings"]}
    assert told["TensorRT for RTX"]["ok"]
    todos = [finding["todo"].split() for finding in told.values() if finding["todo"]]
    assert {tuple(todo[:2]) for todo in todos} <= {("pip", "install"), ("trtcompress", "cache")}
    assert "what" in done("doctor").out


def test_cache_lists_verifies_and_removes(small, tmp_path):
    store = tmp_path / "store"
    build(small, tmp_path, "--store", store, "--until", "calibrate")
    listed = done("cache", "ls", "--store", store, "--json").json["entries"]
    assert [entry["stage"] for entry in listed] == ["export", "simplify", "calibrate"]
    assert done("cache", "verify", "--store", store, "--json").json["entries"] == []
    ranges = next(store.rglob("ranges.json"))
    ranges.write_bytes(ranges.read_bytes().replace(b'"mse"', b'"mze"'))
    broken = trtcompress("cache", "verify", "--store", store)
    assert (broken.code, "1 damaged" in broken.err, "calibrate" in broken.out) == (1, True, True)
    assert trtcompress("cache", "verify", "--store", store, "--remove").code == 0
    removed = done("cache", "gc", "--store", store, "--max-size", "0", "--json").json["entries"]
    assert len(removed) == 2
    assert done("cache", "ls", "--store", store, "--json").json["entries"] == []


def test_schema_of_the_config_accepts_the_examples_and_refuses_other_keys():
    import jsonschema
    import yaml

    schema = json.loads(done("schema").out)
    for example in ("mnist", "ocr"):
        config = yaml.safe_load(Path(__file__).parents[2].joinpath("examples", example, "build.yaml").read_text())
        assert config["name"] == example
        wrong = {**config, "quantise": {}}
        assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)
