"""What a config may hold: sections, short forms, limits, and the schema that editors use."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from trtcompress.config import Allocation, BuildConfig, Importance
from trtcompress.config_file import check_config, load_config, parse_yaml
from trtcompress_graph.axes import AxisRange

EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*/build.yaml"))
SCHEMA = jsonschema.Draft202012Validator(BuildConfig.model_json_schema())
WHOLE = """\
name: mnist
model: {source: "package.module:function", sources: ["src/*.py"], inputs: {x: {batch: [1, 8, 16]}}}
data: {calibration: {source: calib.npz, samples: 128}, evaluation: {source: eval.npz}}
metric: [top1]
quantize: {method: entropy}
targets: [cpu, rtx-4090]
gates: {max_metric_drop: 0.01}
package: [triton]
"""
SMALL = {"name": "m", "model": {"source": "m.onnx"}, "data": {"calibration": {"source": "d.npz"}}}


def test_a_whole_config(tmp_path: Path):
    (tmp_path / "build.yaml").write_text(WHOLE)
    loaded = load_config(tmp_path / "build.yaml")
    config = loaded.config
    assert loaded.base == tmp_path
    assert config.model.axes == {"x": {"batch": AxisRange(1, 8, 16)}}
    assert (config.data.calibration.samples, config.metric) == (128, ("top1",))
    assert config.data.evaluation is not None
    assert config.data.evaluation.source == "eval.npz"
    assert [(target.name, target.precision) for target in config.targets] == [("cpu", "auto"), ("rtx-4090", "auto")]
    assert (config.gates.max_metric_drop, config.gates.min_cosine) == (0.01, None)


def test_everything_but_name_model_and_data_has_a_default():
    config = BuildConfig.model_validate(SMALL)
    assert [target.name for target in config.targets] == ["cpu"]
    assert (config.quantize.method, config.package) == ("mse", ("triton",))


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ({"model": "m.onnx"}, {"model": {"source": "m.onnx"}}),
        ({"data": {"calibration": "d.npz"}}, {"data": {"calibration": {"source": "d.npz"}}}),
        ({"targets": "cpu"}, {"targets": [{"name": "cpu", "precision": "auto"}]}),
        ({"targets": ["rtx-4090:float"]}, {"targets": [{"name": "rtx-4090", "precision": "float"}]}),
        ({"targets": {"name": "cpu"}}, {"targets": [{"name": "cpu"}]}),
        ({"metric": "top5"}, {"metric": ["top5"]}),
        ({"package": "triton-python"}, {"package": ["triton-python"]}),
        (
            {"model": {"source": "m.onnx", "inputs": {"x": {2: 8}}}},
            {"model": {"source": "m.onnx", "inputs": {"x": {"2": [8, 8, 8]}}}},
        ),
    ],
)
def test_short_forms_stand_for_long_ones(short: dict[str, Any], long: dict[str, Any]):
    assert BuildConfig.model_validate(SMALL | short) == BuildConfig.model_validate(SMALL | long)


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"model": {"source": "m", "inputs": {"x": {"batch": [0, 1, 2]}}}}, "1 <= min <= opt <= max"),
        ({"model": {"source": "m", "inputs": {"x": {"batch": [1, 9, 8]}}}}, r"inputs\.x\.batch"),
        ({"targets": []}, "at least one target"),
        ({"targets": ["cpu", "cpu:float"]}, "'cpu' is there twice: engines are filed by device"),
        ({"name": "../up"}, "name"),
        ({"name": ".hidden"}, "name"),
        ({"prune": {}}, "exactly one of macs, params, speedup and plan says how far to cut; none is there"),
        ({"prune": {"macs": 0.5, "params": 0.5}}, "macs and params are there"),
        ({"prune": {"macs": 1.0}}, "less than 1"),
        ({"prune": {"params": 0}}, "greater than 0"),
        ({"prune": {"speedup": 1}}, "greater than 1"),
        ({"prune": {"macs": float("nan")}}, "macs"),
        ({"prune": {"macs": 0.5, "multiple": 0}}, "multiple"),
        ({"prune": {"macs": 0.5, "depth": 1.5}}, "depth"),
        (
            {"prune": {"macs": 0.5, "importance": "l3"}},
            "'l1', 'l2', 'energy', 'activation', 'obs', 'taylor', 'fisher' or 'random'",
        ),
        ({"prune": {"plan": "p.json", "keep": ["head.*"], "multiple": 4}}, "remove multiple, keep"),
        ({"recover": {"epochs": 1}}, "nothing is cut"),
        ({"qat": {"epochs": 1, "minutes": 1}}, "epochs and minutes are there"),
        ({"qat": {"loss": ["logit"]}}, "there is no loss 'logit'"),
        ({"qat": {"loss": ["logits=0"]}}, "above 0"),
        ({"qat": {"function": "loop.py"}}, "is no function"),
        ({"qat": {"precision": "16"}}, "bf16-mixed"),
        ({"prune": {"macs": 0.5, "steps": 2}}, "add a section recover"),
        ({"prune": {"speedup": 2, "steps": 2}, "recover": True}, "steps go with macs or params"),
        ({"data": {"calibration": {"source": "d.npz", "samples": 0}}}, "samples"),
        ({"gates": {"min_speedup": 0}}, "min_speedup"),
        ({"measure": {"seconds": 61}}, "seconds"),
    ],
)
def test_limits(part: dict[str, Any], words: str):
    with pytest.raises(ValidationError, match=words):
        BuildConfig.model_validate(SMALL | part)


def test_settings_cannot_be_changed():
    config = BuildConfig.model_validate(SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        config.quantize.method = "mse"  # type: ignore[misc]


_names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,8}", fullmatch=True)
_positive = st.floats(1e-3, 1e6, allow_nan=False)
_length = st.integers(1, 64)
_lengths = st.lists(_length, min_size=3, max_size=3).map(sorted) | _length
_texts = st.text(st.characters(codec="ascii", exclude_categories=["C"], exclude_characters="$"), min_size=1, max_size=8)
_source = st.fixed_dictionaries({"source": _texts}, optional={"samples": st.none() | st.integers(1, 500)})
_share = st.floats(0.01, 0.99)
_budgets = st.sampled_from(["macs", "params"]).flatmap(lambda name: st.fixed_dictionaries({name: _share}))
_budgets |= st.fixed_dictionaries({"speedup": st.floats(1.01, 9)})
_how = st.fixed_dictionaries(
    {},
    optional={
        "importance": st.sampled_from(get_args(Importance)),
        "allocation": st.sampled_from(get_args(Allocation)),
        "reconstruct": st.booleans(),
        "multiple": _length,
        "keep": st.lists(_texts, max_size=2) | _texts,
        "depth": _share,
        "samples": _length,
    },
)
_cuts = st.builds(lambda budget, how: budget | how, _budgets, _how) | st.just({"plan": "plan.json"})
_sections = st.fixed_dictionaries(
    {
        "name": _names,
        "model": st.fixed_dictionaries(
            {"source": _texts},
            optional={
                "sources": st.lists(_texts, max_size=2),
                "inputs": st.dictionaries(_texts, st.dictionaries(_texts, _lengths, max_size=2), max_size=2),
                "trust_pickle": st.booleans(),
            },
        ),
        "data": st.fixed_dictionaries({"calibration": _source}, optional={"evaluation": st.none() | _source}),
    },
    optional={
        "metric": st.lists(_texts, max_size=2),
        "prune": st.none() | _cuts,
        "qat": st.none() | st.booleans() | st.fixed_dictionaries({}, optional={"epochs": _positive, "batch": _length}),
        "quantize": st.fixed_dictionaries(
            {},
            optional={
                "method": st.sampled_from(["entropy", "minmax", "percentile", "mse", "mse-u8"]),
                "batch": _length,
                "skip": st.lists(_texts, max_size=2),
            },
        ),
        "targets": st.lists(st.sampled_from(["cpu", "rtx-4090:int8", "a100"]), min_size=1, max_size=3, unique=True),
        "gates": st.fixed_dictionaries(
            {}, optional={"max_metric_drop": _positive, "min_cosine": st.floats(-1, 1), "max_size_mb": _positive}
        ),
        "measure": st.fixed_dictionaries(
            {}, optional={"batches": st.lists(_length, max_size=3), "seconds": st.floats(0.01, 60)}
        ),
        "package": st.lists(st.sampled_from(["triton", "triton-python"]), max_size=2),
        "triton": st.fixed_dictionaries({}, optional={"instances": _length, "warmup": st.booleans()}),
    },
)


def read(sections: dict[str, Any]) -> BuildConfig:
    raw, lines = parse_yaml(yaml.safe_dump(sections), "build.yaml")
    return check_config(raw, (), file="build.yaml", lines=lines)


@settings(deadline=None, max_examples=60)
@given(_sections)
def test_any_valid_sections_load_and_come_back(sections: dict[str, Any]):
    config = read(sections)
    dumped = config.model_dump(mode="json")
    for section in ("prune", "quantize", "gates", "measure", "triton"):
        given = sections.get(section) or {}
        assert {k: [v] if k == "keep" and isinstance(v, str) else v for k, v in given.items()} == {
            key: dumped[section][key] for key in given
        }
    assert read(dumped) == config
    SCHEMA.validate(sections)
    SCHEMA.validate(dumped)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_fit_the_schema(path: Path):
    SCHEMA.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert load_config(path).config.name == path.parent.name


@pytest.mark.parametrize(
    "part",
    [
        {"unknown": 1},
        {"targets": [{"nam": "cpu"}]},
        {"quantize": {"method": "enropy"}},
        {"model": {"source": "m", "inputs": {"x": {"batch": [1, 2]}}}},
        {"package": "tritn"},
        {"measure": {"batches": "all"}},
    ],
)
def test_the_schema_refuses_what_the_config_refuses(part: dict[str, Any]):
    for check in (
        lambda value: jsonschema.validate(value, BuildConfig.model_json_schema()),
        BuildConfig.model_validate,
    ):
        check(SMALL)
        with pytest.raises((jsonschema.ValidationError, ValidationError)):
            check(SMALL | part)


def test_examples_are_found():
    assert {path.parent.name for path in EXAMPLES} >= {"mnist", "ocr"}
