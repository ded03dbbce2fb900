from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc.model_config_pb2 import ModelConfig

from trtcompress_engines.triton.textproto import Symbol, quote, to_text


@given(st.text())
def test_any_text_survives(text: str):
    parsed = text_format.Parse(f"name: {quote(text)}", ModelConfig())
    assert parsed.name == text


@given(st.text())
def test_what_is_written_is_printable_ascii(text: str):
    assert all(32 <= ord(character) < 127 for character in quote(text))


def test_message_of_every_kind_of_field():
    text = to_text(
        {
            "name": 'say "hi"\\',
            "max_batch_size": 4,
            "input": [{"name": "x", "data_type": Symbol("TYPE_FP16"), "dims": [3, -1], "optional": True}],
            "output": [{"name": "y"}, {"name": "z", "reshape": {"shape": []}}],
            "version_policy": {"latest": {"num_versions": 2}},
        }
    )
    config = text_format.Parse(text, ModelConfig())
    assert config.name == 'say "hi"\\'
    assert list(config.input[0].dims) == [3, -1]
    assert config.input[0].optional
    assert config.output[1].HasField("reshape")
    assert not config.output[0].HasField("reshape")
    assert config.version_policy.latest.num_versions == 2
