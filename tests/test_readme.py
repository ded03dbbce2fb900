"""The README says what is true: its commands exist, its config loads, its folders are there."""

import re
import shlex
from pathlib import Path

import click
import pytest
import yaml

from trtcompress.asked import known_targets
from trtcompress.cli.main import COMMANDS, root
from trtcompress.config_file import check_config
from trtcompress_graph import errors

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.S)


def command_lines() -> list[str]:
    inline = re.findall(r"`(trtcompress [^`]+)`", README)
    in_blocks = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("trtcompress ")]
    return sorted({line.replace("\\|", "|") for line in (*inline, *in_blocks)})


@pytest.mark.parametrize("line", command_lines())
def test_commands_and_their_options_exist(line: str) -> None:
    words = shlex.split(line)[1:]
    command = root.get_command(click.Context(root), words[0])
    assert command is not None, f"README names {words[0]}"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known


def test_every_command_is_in_the_readme() -> None:
    assert [name for name in COMMANDS if name not in README] == []


def test_the_config_loads() -> None:
    whole, *parts = (yaml.safe_load(text) for text in blocks("yaml"))
    config = check_config(whole, (), file="README.md", lines={})
    assert [target.name for target in config.targets] == ["cpu", "rtx-4090"]
    for part in parts:
        config = check_config({**whole, **part}, (), file="README.md", lines={})
        assert {target.name for target in config.targets} <= known_targets(config).keys()


def test_the_map_names_the_folders() -> None:
    table = README.partition("## Map of the repository")[2]
    named = set(re.findall(r"^\| `(\w+)/` \|", table, flags=re.M))
    there = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith((".", "build", "dist"))}
    assert named == {name for name in there if any((ROOT / name).rglob("*.*"))} - {"__pycache__"}


def test_exit_codes_are_those_of_the_errors() -> None:
    codes = {int(code) for code in re.findall(r"^\| (\d+) \| ", README, flags=re.M)}
    raised = {getattr(errors, name).exit_code for name in dir(errors) if name.endswith("Error")}
    assert codes == {0, 1, 130} | raised
