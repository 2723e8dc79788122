"""The pre-commit hook and the GitHub Action run the command with arguments that it has, and execute no input."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[4]
ACTION = yaml.safe_load((ROOT / ".github" / "actions" / "review" / "action.yml").read_text())
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: research}\nspec: {containers: [{name: c, image: i}]}\n"


@pytest.fixture
def step(tmp_path):
    """Run the script of the action in a directory with one manifest: its exit code and its output."""
    tool = tmp_path / "bin" / "weightlock"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nexec "{ROOT}/.venv/bin/weightlock" "$@"\n')
    tool.chmod(0o755)
    (tmp_path / "a.yaml").write_text(POD)

    def run(**inputs):
        script = ACTION["runs"]["steps"][-1]["run"]
        variables = dict.fromkeys(ACTION["runs"]["steps"][-1]["env"], "") | {"FORMAT": "github"} | inputs
        environment = {**os.environ, **variables, "PATH": f"{tool.parent}:{os.environ['PATH']}"}
        result = subprocess.run(
            ["bash", "-e", "-o", "pipefail", "-c", script],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return result.returncode, result.stdout + result.stderr

    return run


def test_the_hook_names_the_command():
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "weightlock review"
    assert hook["require_serial"] is True


def test_every_input_is_a_variable_of_the_step():
    used = " ".join(value for step in ACTION["runs"]["steps"] for value in step.get("env", {}).values())
    assert all(f"inputs.{name} " in used for name in ACTION["inputs"])
    assert all("${{" not in step.get("run", "") for step in ACTION["runs"]["steps"])


def test_the_action_reviews_files(step, tmp_path):
    assert step(FILES="a.yaml")[0] == 0
    assert step(FILES="*.yaml", FORMAT="sarif", OUTPUT="out.sarif")[0] == 0
    assert (tmp_path / "out.sarif").read_text().startswith("{")
    assert step(FILES="nowhere.yaml")[0] == 2


def test_the_shell_does_not_execute_inputs(step, tmp_path):
    step(FILES="$(touch owned) `touch owned` ; touch owned")
    step(FILES="a.yaml", REQUESTER='"; touch owned; "')
    assert not (tmp_path / "owned").exists()
