"""Reading a config: errors that name file, line and key; `--set`; `${NAME}`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from trtcompress.config import BuildConfig
from trtcompress.config_file import check_config, load_config, parse_yaml
from trtcompress_graph.errors import ConfigError, MissingPathError, UsageError

CONFIG = """\
name: small
model:
  source: m.onnx
  inputs:
    x: {batch: [1, 8, 16]}
data:
  calibration:
    source: calib
    preprocess: {size: [8, 8]}
targets:
  - cpu
  - name: rtx-4090
    precision: int8
metric: [top1]
"""


def load(tmp_path: Path, text: str = CONFIG, *overrides: str) -> BuildConfig:
    path = tmp_path / "build.yaml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, overrides).config


@pytest.mark.parametrize(
    ("old", "new", "line", "key", "words"),
    [
        ("name: small", "nmae: small", 1, "nmae", "did you mean 'name'"),
        ("  source: m.onnx", "  sorce: m.onnx", 3, "model.sorce", "did you mean 'source'"),
        ("    source: calib", "    samles: 3", 8, "data.calibration.samles", "did you mean 'samples'"),
        ("{size: [8, 8]}", "{sise: [8, 8]}", 9, "data.calibration.preprocess.sise", "did you mean 'size'"),
        ("    precision: int8", "    precison: int8", 13, "targets.1.precison", "did you mean 'precision'"),
        ("metric: [top1]", "zzz: 1", 14, "zzz", "known keys here: name, model, data"),
        ("precision: int8", "precision: int9", 13, "targets.1.precision", "did you mean 'int8'"),
        ("metric: [top1]", "quantize: {method: entrpy}", 14, "quantize.method", "did you mean 'entropy'"),
        ("metric: [top1]", "package: [triton, tritn]", 14, "package.1", "did you mean 'triton'"),
        ("metric: [top1]", "measure: {threads: many}", 14, "measure.threads", "valid integer"),
        ("metric: [top1]", "metric: [top1, 5]", 14, "metric.1", "valid string"),
        ("[1, 8, 16]", "[1, 8]", 5, "model.inputs.x.batch", "needed"),
        ("[1, 8, 16]", "[1, eight, 16]", 5, "model.inputs.x.batch.1", "valid integer"),
        ("[8, 8]", "[8, 8, 8]", 9, "data.calibration.preprocess.size", "at most 2 items"),
        ("name: small", "name: [small]", 1, "name", "valid string"),
        ("    source: calib\n", "", 7, "data.calibration.source", "needed"),
        ("metric: [top1]", "qat: {epoch: 5}", 14, "qat.epoch", "did you mean 'epochs'"),
        ("metric: [top1]", "recover: yes please", 14, "recover", "neither true nor false, nor a section"),
        ("metric: [top1]", "recover: {teacher: big.onnx}", 14, "recover.teacher", "the model before the cut teaches"),
        ("metric: [top1]", "prune: {macs: 2}", 14, "prune.macs", "less than 1"),
        ("metric: [top1]", "gates: {min_speedup: .inf}", 14, "gates.min_speedup", "not a finite number"),
        ("metric: [top1]", "gates: {max_metric_drop: .nan}", 14, "gates.max_metric_drop", "not a finite number"),
        ("metric: [top1]", "metric: [top1]\nmetric: [top5]", 15, "metric", "there twice"),
        ("  source: m.onnx", "  source: m.onnx\n  source: n.onnx", 4, "model.source", "there twice"),
        ("    precision: int8", "    precision: int8\n    name: cpu", 14, "targets.1.name", "there twice"),
    ],
)
def test_an_error_names_file_line_and_key(tmp_path: Path, old: str, new: str, line: int, key: str, words: str):
    assert CONFIG.count(old) == 1
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CONFIG.replace(old, new))
    assert caught.value.where.startswith(f"{tmp_path / 'build.yaml'}:{line}: {key}")
    assert words in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping"),
        ("- a\n- b\n", "mapping"),
        ("just text", "mapping"),
        ("name: [1, 2\n", "build.yaml:2: this is not YAML"),
        ("name: a\n\tmodel: b\n", "build.yaml:2: this is not YAML"),
        ("name: !!python/object/apply:os.system ['touch gone']\n", "build.yaml:1: this is not YAML"),
        ("name: 2026-99-99\n", "cannot be read"),
        ("name: a\x00b\n", "this is not YAML"),
        ("[" * 3000, "nested too deeply"),
        ("name: &a [*a]\n", "nested too deeply"),
        ("? [a]\n: b\n", "this is not YAML"),
    ],
)
def test_what_is_no_config(tmp_path: Path, text: str, words: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, text)
    assert not (tmp_path / "gone").exists()


def test_a_file_that_cannot_be_read(tmp_path: Path):
    with pytest.raises(MissingPathError, match="no such config"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(MissingPathError, match="no such config"):
        load_config(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(ConfigError, match="not a text file"):
        load_config(tmp_path / "binary.yaml")


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=60))
def test_no_text_ends_in_anything_but_a_config_error(text: str):
    with pytest.raises(ConfigError) as caught:  # 60 characters do not hold name, model and data
        check_config(parse_yaml(text, "f.yaml")[0], (), file="f.yaml", lines={})
    assert caught.value.where.startswith("f.yaml")


@pytest.mark.parametrize(
    ("override", "read"),
    [
        ("name=other", lambda c: c.name == "other"),
        ("quantize.method=mse", lambda c: c.quantize.method == "mse"),
        ("quantize={method: minmax, batch: 4}", lambda c: (c.quantize.method, c.quantize.batch) == ("minmax", 4)),
        ("targets=[cpu]", lambda c: [t.name for t in c.targets] == ["cpu"]),
        ("targets=cpu:float", lambda c: [t.precision for t in c.targets] == ["float"]),
        ("targets.1.precision=float", lambda c: [t.precision for t in c.targets] == ["auto", "float"]),
        ("targets.0.precision=int8", lambda c: [t.name for t in c.targets] == ["cpu", "rtx-4090"]),
        ("targets.0=t4:float", lambda c: [t.name for t in c.targets] == ["t4", "rtx-4090"]),
        ("metric=[]", lambda c: c.metric == ()),
        ("metric.0=top5", lambda c: c.metric == ("top5",)),
        ("model=n.onnx", lambda c: c.model.source == "n.onnx" and c.model.inputs == {}),
        ("model.inputs.x.batch=[2, 2, 4]", lambda c: c.model.inputs["x"]["batch"] == (2, 2, 4)),
        ("model.inputs.x.batch.2=32", lambda c: c.model.inputs["x"]["batch"] == (1, 8, 32)),
        ('model.inputs."a.b".batch=3', lambda c: c.model.inputs["a.b"]["batch"] == (3, 3, 3)),
        ("data.calibration.samples=7", lambda c: c.data.calibration.samples == 7),
        ("data.evaluation=e.npz", lambda c: c.data.evaluation.source == "e.npz"),
        ("data.evaluation.source=mod:function", lambda c: c.data.evaluation.source == "mod:function"),
        ("data.calibration.preprocess.size=null", lambda c: c.data.calibration.preprocess.size is None),
    ],
)
def test_set_overrides_any_key(tmp_path: Path, override: str, read: Any):
    config = load(tmp_path, CONFIG, override)
    assert read(config)
    if not override.startswith("data."):
        assert config.data.calibration.source == "calib"


def test_set_reaches_into_short_forms(tmp_path: Path):
    text = "name: s\nmodel: m.onnx\ndata: {calibration: d.npz}\ntargets: rtx-4090:int8\n"
    config = load(tmp_path, text, "model.trust_pickle=true", "data.calibration.samples=3", "targets.precision=float")
    assert (config.model.source, config.model.trust_pickle) == ("m.onnx", True)
    assert (config.data.calibration.source, config.data.calibration.samples) == ("d.npz", 3)
    assert [(t.name, t.precision) for t in config.targets] == [("rtx-4090", "float")]


def test_the_last_of_several_overrides_wins(tmp_path: Path):
    overrides = ("quantize.method=mse", "quantize.method=minmax", "quantize.batch=2")
    config = load(tmp_path, CONFIG, *overrides)
    assert (config.quantize.method, config.quantize.batch) == ("minmax", 2)


@pytest.mark.parametrize(
    ("override", "where", "words"),
    [
        ("quantize.method=entrpy", "--set quantize.method", "did you mean 'entropy'"),
        ("targets.1.precison=int8", "--set targets.1.precison", "did you mean 'precision'"),
        ("data.calibration={sorce: a}", "--set data.calibration.sorce", "did you mean 'source'"),
        ("data={calibration: {source: a, preprocess: {sise: 3}}}", "--set data.calibration.preprocess.sise", "'size'"),
        ("gates.min_speedup=fast", "--set gates.min_speedup", "valid number"),
        ("qat.epoch=5", "--set qat.epoch", "did you mean 'epochs'"),
        ("prune.macs=2", "--set prune.macs", "less than 1"),
        ("model.inputs.x.batch=[4, 2, 1]", "--set model.inputs.x.batch", "min <= opt <= max"),
    ],
)
def test_an_error_of_an_override_points_at_it(tmp_path: Path, override: str, where: str, words: str):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CONFIG, override)
    assert where in caught.value.where
    assert words in str(caught.value)


def test_an_error_of_the_file_does_not_point_at_overrides_beside_it(tmp_path: Path):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, CONFIG.replace("source: m.onnx", "sorce: m.onnx"), "model.trust_pickle=true")
    assert caught.value.where == f"{tmp_path / 'build.yaml'}:3: model.sorce"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("quantize.method", "not key=value"),
        ("=3", "not key=value"),
        ("quantize.skip=[a", "not a YAML value"),
        ("name=2026-99-99", "not a YAML value"),
        ("targets.7.name=cpu", "no place in a list of 2"),
        ("targets.first=cpu", "no place in a list of 2"),
    ],
)
def test_an_override_that_is_none(tmp_path: Path, override: str, words: str):
    with pytest.raises(UsageError, match=words) as caught:
        load(tmp_path, CONFIG, override)
    assert caught.value.where.startswith("--set")


@settings(deadline=None, max_examples=50)
@given(st.sets(st.text("ab.", min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_an_override_changes_its_key_and_no_other(inputs: set[str], data: st.DataObject):
    """Whatever the names, dots in them too."""
    axes = {name: {"batch": 2, "time": 3} for name in inputs}
    raw = {"name": "n", "model": {"source": "m", "inputs": axes}, "data": {"calibration": "d"}}
    key = data.draw(st.sampled_from(sorted(inputs)))
    length = data.draw(st.integers(1, 9))
    config = check_config(raw, [f'model.inputs."{key}".batch={length}'], file="f", lines={})
    expected = {name: {"batch": (2, 2, 2), "time": (3, 3, 3)} for name in inputs}
    expected[key]["batch"] = (length, length, length)
    assert config.model.inputs == expected
    assert raw["model"]["inputs"][key]["batch"] == 2  # what was given is not written to


def test_variables_are_expanded_where_they_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FOLDER", "/data")
    monkeypatch.setenv("COUNT", "12")
    monkeypatch.setenv("NESTED", "${FOLDER}")
    text = CONFIG.replace("source: calib", "source: ${FOLDER}/c-$FOLDER-$(FOLDER)-${NESTED}")
    config = load(tmp_path, text, "data.calibration.samples=${COUNT}", "metric=[top1, 'm:${COUNT}']")
    assert config.data.calibration.source == "/data/c-$FOLDER-$(FOLDER)-${FOLDER}"
    assert config.data.calibration.samples == 12
    assert config.metric == ("top1", "m:12")


@pytest.mark.parametrize("overrides", [(), ("data.calibration.source=${NOWHERE}",)])
def test_an_undefined_variable_is_refused(tmp_path: Path, overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NOWHERE", raising=False)
    text = CONFIG if overrides else CONFIG.replace("source: calib", "source: ${NOWHERE}/c")
    with pytest.raises(ConfigError, match="NOWHERE is not set") as caught:
        load(tmp_path, text, *overrides)
    place = "--set" if overrides else f"{tmp_path / 'build.yaml'}:8:"
    assert caught.value.where == f"{place} data.calibration.source"


def test_merge_keys_and_anchors_work(tmp_path: Path):
    text = (
        "name: s\nmodel: m.onnx\ndata:\n"
        "  calibration: &d {source: d.npz, samples: 4}\n  evaluation: {<<: *d, samples: 9}\n"
    )
    config = load(tmp_path, text)
    assert config.data.evaluation is not None
    assert (config.data.evaluation.source, config.data.evaluation.samples) == ("d.npz", 9)
    with pytest.raises(ConfigError, match="smples") as caught:
        load(tmp_path, text.replace("{<<: *d, samples: 9}", "{<<: *d, smples: 9}"))
    assert ":5: data.evaluation.smples" in caught.value.where


@settings(deadline=None, max_examples=50)
@given(st.dictionaries(st.sampled_from(list(BuildConfig.model_fields)), st.none(), max_size=4))
def test_lines_are_those_of_the_keys(sections: dict[str, None]):
    text = yaml.safe_dump(sections, sort_keys=False) if sections else "{}"
    _, lines = parse_yaml(text, "f")
    assert lines == {(key,): index for index, key in enumerate(sections, start=1)}
