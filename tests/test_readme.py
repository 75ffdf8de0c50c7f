"""The README's tour: every command in it runs, in the order in which it stands there."""

import re
import shlex
from pathlib import Path

import pytest

import archdsl
from archdsl.cli.main import COMMANDS, run
from archdsl.language import loads, loads_space

README = (Path(__file__).parents[1] / "README.md").read_text()


def tour() -> list[str]:
    """The commands of the tour: lines that start with `$ ` in its console blocks."""
    return [
        line[2:]
        for block in re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


def files() -> dict[str, str]:
    """The YAML files that the tour writes, by the name in their first line."""
    return dict(re.findall(r"```yaml\n# (\S+\.yaml)\n(.*?)```", README, flags=re.DOTALL))


@pytest.mark.timeout(600)  # the whole tour
def test_every_command_of_the_tour_runs(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ARCHDSL_CACHE_DIR", str(tmp_path / "cache"))
    for name, text in files().items():
        Path(name).write_text(text)
    assert len(tour()) >= 10
    for command in tour():
        program, *arguments = shlex.split(command)
        assert program == "archdsl"
        code = run(arguments)
        shown = capfd.readouterr()
        assert code == 0, f"{command}\n{shown.out}\n{shown.err}"
    assert (tmp_path / "my_net" / "model.onnx").is_file()
    assert {path.name for path in (tmp_path / "my_net_fp16").iterdir()} >= {"model.onnx", "model.py", "build.json"}
    assert (tmp_path / "my_net_pt2" / "model.pt2").is_file()
    assert (tmp_path / "runs" / "my_space" / "front.csv").is_file()


def test_the_tour_shows_every_command_there_is():
    shown = {command.split()[1] for command in tour()}
    assert shown == set(COMMANDS)


def test_the_error_in_the_readme_is_the_error_one_gets(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    Path("broken.yaml").write_text(
        "name: my_net\nextends: swin_free_t\ninput: {size: 112}\nstages: [{}, {}, {}, {windw: 7}]\n"
    )
    assert run(["check", "broken.yaml"]) == 1
    shown = capfd.readouterr().err
    promised = re.search(r"```text\n(broken\.yaml.*?)…\n```", README, flags=re.DOTALL)
    assert promised is not None and shown.startswith(promised[1].rstrip())


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = next(block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    exec(compile(code, "README.md", "exec"), {})
    assert Path("swin_free_b_dr14.onnx").is_file()


def test_the_language_page_is_right():
    """Its specs come to what they expect, or are the shipped ones, and its spaces load."""
    text = (Path(__file__).parents[1] / "docs" / "language.md").read_text()
    spec, dense, space, devices = (loads_space(b) if "choices:" in b else loads(b) for b in yaml_blocks(text))
    assert archdsl.identity(dense) == archdsl.identity("upernet_swin_t")
    assert (archdsl.cost(spec).params, archdsl.cost(spec).macs) == (spec.expect.params, spec.expect.macs)
    assert space.num_total == 2**4 * 2 * 5 * 2
    assert devices.objectives.names == ("latency@openvino", "latency@bulk", "params")
    assert devices.constraints.latency.on("bulk").max == 3000 and devices.constraints.latency.on("openvino").max == 200


def yaml_blocks(text: str) -> list[str]:
    return re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
