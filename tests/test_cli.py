"""The ``sgv-lab`` command: every subcommand loads, and a user's error is one line."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from sgv_lab.cli import COMMANDS, main


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_loads_and_explains_itself(name: str) -> None:
    *above, last = name.split()
    shown = CliRunner().invoke(main, [*above, last, "--help"], terminal_width=500)
    assert shown.exit_code == 0, shown.output
    about = shown.output.split("\n\n")[1].strip()
    listed = CliRunner().invoke(main, [*above, "--help"], terminal_width=500).output
    (line,) = [line for line in listed.splitlines() if line.startswith(f"  {last} ")]
    assert about.startswith(line.split(maxsplit=1)[1].rstrip("."))


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_needs_and_is_not_given_is_named(name: str) -> None:
    *above, last = name.split()
    done = CliRunner().invoke(main, [*above, last, "--help"], terminal_width=500)
    if "[required]" not in done.output:
        pytest.skip("needs nothing")
    refused = CliRunner().invoke(main, [*above, last])
    assert refused.exit_code == 2 and "Missing " in refused.output


def test_captioning_by_a_served_model_stands_first() -> None:
    told = CliRunner().invoke(main, ["caption", "--help"]).output
    options = re.findall(r"^  --([a-z-]+)", told, re.MULTILINE)
    assert options[:3] == ["model", "images", "out"]
    assert re.search(r"--model TEXT +Address of an endpoint, or", told)
    of = dict(re.findall(r"^  --([a-z-]+)[^:\n]*?(Endpoint|Checkpoint):", told, re.MULTILINE))
    assert {name for name, kind in of.items() if kind == "Checkpoint"} == {"batch-size", "static"}
    both = {"model", "temperature", "max-tokens", "prompt", "shard", "merge"}
    assert set(options) - set(of) == both | {"images", "out", "root", "seed"}


def test_help_and_version_load_no_framework() -> None:
    code = "import sys\nfrom sgv_lab.cli import main\n"
    code += "main(['--version'], standalone_mode=False)\n"
    code += "main(['--help'], standalone_mode=False)\n"
    code += "print(*({'torch', 'transformers', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""


def test_an_error_of_the_user_is_one_line_and_fails() -> None:
    done = CliRunner().invoke(main, ["run", "--profile", "mni"])
    assert done.exit_code == 1
    assert done.output.strip().splitlines() == [
        "Error: unknown profile 'mni'. Did you mean 'mini'? (known: smoke, mini, paper)."
    ]
    assert CliRunner().invoke(main, ["run", "-p", "novalue"]).exit_code == 1
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2


def test_world_export_writes_a_data_set_and_never_over_one(tmp_path: Path) -> None:
    command = ["world", "export", str(tmp_path / "data"), "--scenes", "3", "--size", "32"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "data").rglob("*.png"))) == 3
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1 and "already there" in again.output
