"""`doctor`: what it reports, that it finds what is wrong, and that nothing broken breaks it."""

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from helpers.cli import PROGRAM, run
from helpers.invoke import invoke
from helpers.plain_gguf import plain

from mistral_mlx.cli.reports.doctor import files, installation, machine, models, report, surroundings
from mistral_mlx.cli.reports.doctor.findings import Findings, State, without_home
from mistral_mlx.kernels import native

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
WATCHED = """
import sys
def hook(event, args):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system")):
        sys.stderr.write(f"forbidden: {event}\\n")
sys.addaudithook(hook)
"""
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "PACKAGE":
            raise ImportError(f"no {name} here")
sys.meta_path.insert(0, Blocker())
"""
FIELDS = {"lines", "facts"}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch):
    for name in surroundings.NETWORK:
        for spelled in (name, name.lower()):
            monkeypatch.delenv(spelled, raising=False)


def report_of(*, before="", **env):
    """Run the program in a process of its own, and return its status, its report and its stderr."""
    code = f"{before}\nimport sys\nsys.argv[1:] = ['doctor', '--json']\n{PROGRAM[2]}"
    environment = {**os.environ, **env}
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        env={key: value for key, value in environment.items() if value is not None},
    )
    return result.returncode, json.loads(result.stdout), result.stderr


def states(found):
    """Return the states of the lines of each check that is not simply ok."""
    checks = {name: {line["state"] for line in check["lines"]} for name, check in found["checks"].items()}
    return {name: of for name, of in checks.items() if "fault" in of}


def faults(found):
    return [f"{line.text} | {line.advice}" for line in found.lines if line.state is State.FAULT]


def examined(check, *args):
    found = Findings("it")
    check(found, *args)
    return found


def test_a_good_installation_has_no_fault_and_the_page_lists_all_facts():
    status, found, stderr = report_of(before=WATCHED, HF_ENDPOINT="https://a.example", HTTPS_PROXY="http://b.example")
    assert (status, stderr, found["faults"], states(found)) == (0, "", 0, {})
    _, _, section = PAGE.read_text("utf-8").partition("\n## Checking the installation\n")
    documented = dict(re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE))
    assert list(documented) == list(found["checks"])
    for name, check in found["checks"].items():
        assert check.keys() == FIELDS and check["lines"], name
        if name not in ("packages", "caches"):  # their keys are names
            assert re.findall(r"`(\w+)`", documented[name]) == list(check["facts"]), name


def test_the_text_has_a_state_on_each_line_and_ends_with_the_number_of_faults():
    result = invoke("doctor")
    *lines, empty, last = result.stdout.splitlines()
    assert (empty, last) == ("", "no fault found")
    assert [line for line in lines if not re.match(r"(ok|note|fault) +[a-z]+ +\S|                  ->", line)] == []


def test_a_terminal_gets_wrapped_lines_and_a_pipe_a_line_for_each_finding(monkeypatch):
    """A pipe used to get lines of 100 columns, which nothing that reads them can join again."""
    found = Findings("home")
    found.ok("word " * 60)
    monkeypatch.setenv("COLUMNS", "80")
    assert report._text(found).count("\n") == 1
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    lines = report._text(found).splitlines()
    assert len(lines) > 4 and max(map(len, lines)) <= 80 and lines[1].startswith(" " * 18 + "word")


@pytest.mark.parametrize("package", ["mlx", "numpy", "sentencepiece", "tokenizers", "jinja2", "prompt_toolkit"])
def test_a_package_that_cannot_be_imported_is_a_fault_and_no_traceback(package):
    status, found, stderr = report_of(before=BLOCKED.replace("PACKAGE", package))
    assert (status, stderr) == (1, "")
    check = "mlx" if package == "mlx" else "packages"
    assert check in states(found)
    line = next(line for line in found["checks"][check]["lines"] if line["advice"])
    assert f"no {package}" in line["text"] and "install" in line["advice"]


def test_a_program_that_cannot_even_start_says_so_in_one_line():
    code = BLOCKED.replace("PACKAGE", "platformdirs") + f"sys.argv[1:] = ['doctor']\n{PROGRAM[2]}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "the installation is incomplete (no platformdirs here)" in result.stderr


def test_an_internal_error_names_the_command_that_says_what_a_report_needs():
    code = "from mistral_mlx.cli.models import registry\nregistry.registered = lambda: 1 / 0\nimport sys\n"
    code += f"sys.argv[1:] = ['models']\n{PROGRAM[2]}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "'mistral-mlx doctor' what else a report needs" in result.stderr


def test_what_is_broken_around_it_are_faults_and_no_traceback(home, config):
    config.write_text("temperature = ")
    (home / "models.json").write_text("[")
    env = {"HOME": None, "MISTRAL_MLX_KERNELS": "none", "MISTRAL_MLX_COPY_WEIGHTS": "7", "HF_ENDPOINT": "ftp:/x"}
    status, found, stderr = report_of(**env, LC_ALL="C", TERM=None, MISTRAL_MLX_TYPO="1")
    assert (status, stderr) == (1, "")
    assert states(found).keys() == {"kernels", "memory", "config", "models", "network"}
    texts = {name: check["lines"][-1]["text"] for name, check in found["checks"].items()}
    assert "is not TOML" in texts["config"] and "delete it and fetch the models again" in texts["models"]
    assert "this CPU can run" in texts["kernels"] or "unset it" in texts["kernels"]
    assert "MISTRAL_MLX_TYPO has no effect" in found["checks"]["variables"]["lines"][0]["text"]


def test_a_home_that_cannot_be_made_is_a_fault(tmp_path):
    (tmp_path / "file").touch()
    status, found, _ = report_of(MISTRAL_MLX_HOME=str(tmp_path / "file" / "home"))
    assert (status, "home" in states(found)) == (1, True)
    line = found["checks"]["home"]["lines"][0]
    assert "cannot be made" in line["text"] and "set MISTRAL_MLX_HOME to another folder" in line["advice"]


def test_a_home_that_cannot_be_written_is_a_fault(monkeypatch):
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)
    assert "is not writable | change that" in faults(examined(files.own_folder))[0]


def test_passwords_tokens_and_the_users_folder_are_never_shown(tmp_path):
    (tmp_path / "token").write_text("hf_secret")
    secret = {"HF_TOKEN": "hf_secret", "HF_TOKEN_PATH": str(tmp_path / "token"), "https_proxy": "http://me:secret@p"}
    secret |= {"PIP_INDEX_URL": "https://me:secret@i/simple", "HF_ENDPOINT": "secret", "MISTRAL_MLX_SYSTEM": "secret"}
    for args in ((), ("--json",)):
        shown = run("doctor", *args, env={**os.environ, **secret, "HOME": str(tmp_path)}).stdout.decode()
        assert "HTTPS_PROXY, PIP_INDEX_URL" in shown or '"HTTPS_PROXY", "PIP_INDEX_URL"' in shown
        assert "access token is there" in shown and "MISTRAL_MLX_SYSTEM" in shown
        assert "secret" not in shown and str(tmp_path) not in shown


def test_paths_in_the_facts_do_not_name_the_users_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    found = Findings("x")
    found.facts["path"] = str(tmp_path / "models")
    assert found.record()["facts"] == {"path": "~/models"}


def test_models_that_are_gone_or_damaged_are_faults(tmp_path, home):
    (tmp_path / "empty").mkdir()
    names = {"gone": str(tmp_path / "gone"), "empty\x1b[2J": str(tmp_path / "empty")}
    (home / "models.json").write_text(json.dumps(names))
    found = examined(models.registered)
    empty, gone = faults(found)
    assert "empty\\x1b[2J cannot be used: config.json is missing" in empty and "is gone" in gone
    assert [record["error"] is None for record in found.facts["registered"]] == [False, False]


def test_caches_of_other_programs_are_counted(tmp_path, monkeypatch):
    hub, ollama = tmp_path / "hub", tmp_path / "ollama"
    for name in ("models--a--b", "models--c--d", "datasets--e--f"):
        (hub / name / "refs").mkdir(parents=True)
        (hub / name / "refs" / "main").touch()
    manifests = ollama / "manifests" / "registry.ollama.ai" / "library" / "mistral"
    manifests.mkdir(parents=True)
    (manifests / "7b").touch()
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setenv("OLLAMA_MODELS", str(ollama))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert examined(models.caches).facts == {"Hugging Face's cache": 2, "LM Studio": 0, "Ollama": 1}


def test_a_model_that_has_to_be_converted_is_no_fault(tmp_path, home):
    (tmp_path / "gguf").mkdir()
    plain(tmp_path / "gguf" / "a.gguf")
    (home / "models.json").write_text(json.dumps({"org/a": str(tmp_path / "gguf")}))
    found = examined(models.registered)
    assert faults(found) == []
    assert "org/a has to be converted: mistral-mlx convert org/a a-mlx" in [line.text for line in found.lines]


@pytest.mark.parametrize(
    ("required", "said"),
    [
        ("numpy<1", f"numpy {metadata.version('numpy')} is installed, but <1 is needed | run: "),
        ("nonesuch>=2", "nonesuch is not installed | run: "),
        ('nonesuch>=2; sys_platform == "none"', None),
        ("nonesuch>=2; extra == 'test'", None),
    ],
)
def test_versions_are_compared_with_what_the_program_requires(monkeypatch, required, said):
    monkeypatch.setattr(installation.metadata, "requires", lambda name: [required])
    found = faults(examined(installation.packages))
    assert len(found) == (said is not None)
    if said:
        assert found[0].startswith(said) and "--force-reinstall" in found[0]


@pytest.mark.parametrize(
    ("receipt", "advice"),
    [("uv-receipt.toml", "uv tool upgrade --reinstall mistral-mlx"), ("pipx_metadata.json", "pipx reinstall")],
)
def test_the_advice_fits_what_installed_the_program(monkeypatch, tmp_path, receipt, advice):
    (tmp_path / receipt).touch()
    monkeypatch.setattr(installation.sys, "prefix", str(tmp_path))
    assert advice in installation.reinstalled("numpy<3")


@pytest.mark.cpu
@pytest.mark.parametrize(
    ("built", "missing", "state", "said"),
    [
        (False, "they were not built when it was installed", State.FAULT, "install a C++ compiler"),
        (True, "there are none for this CPU yet", State.NOTE, "several times as long"),
    ],
)
def test_missing_kernels_say_why_and_what_to_do(monkeypatch, built, missing, state, said):
    for name, value in {"built": built, "available": False, "missing": missing}.items():
        monkeypatch.setattr(native, name, value)
    (line,) = examined(machine.kernels).lines
    assert line.state is state and missing in line.text and said in line.text + line.advice


@pytest.mark.cpu
def test_kernels_that_fail_with_this_mlx_are_a_fault(monkeypatch):
    if not native.available:
        pytest.skip("there are no native kernels")

    def fail(*args):
        raise TypeError("incompatible\nfunction arguments")

    monkeypatch.setattr("mistral_mlx.kernels.rms_norm", fail)
    assert "do not work with this mlx: incompatible function arguments" in faults(examined(machine.kernels))[0]
    monkeypatch.setattr("mistral_mlx.kernels.rms_norm", lambda x, weight, eps: x)
    assert "compute wrong results" in faults(examined(machine.kernels))[0]


def test_a_check_that_fails_is_a_fault_and_does_not_end_the_others():
    def fails(found):
        found.ok("half")
        raise KeyError("x")

    one, other = report.examined({"one": fails, "other": lambda found: found.ok("fine")})
    assert (one.lines[0].text, other.lines[0].text) == ("half", "fine")
    assert faults(one) == ["cannot be checked (KeyError: 'x') | please report it with this page"]


def test_a_locale_that_is_not_utf8_is_noted(monkeypatch):
    monkeypatch.setattr(surroundings.locale, "getencoding", lambda: "ISO-8859-1")
    (line,) = examined(surroundings.terminal).lines
    assert line.state is State.NOTE and "ISO-8859-1; text is written as UTF-8" in line.text


def test_the_walk_over_a_folder_is_bounded_and_follows_no_link(tmp_path, monkeypatch):
    (tmp_path / "below").mkdir()
    for n in range(6):
        (tmp_path / "below" / str(n)).write_bytes(b"ab")
    (tmp_path / "below" / "up").symlink_to(tmp_path)
    assert files.size_of(tmp_path) == (12, 6, True)
    monkeypatch.setattr(files, "MAX_ENTRIES", 4)
    assert files.size_of(tmp_path).whole is False and files.size_of(tmp_path).files <= 4
    assert files.size_of(tmp_path / "none") is None


def test_only_the_users_own_folder_is_shortened(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert without_home("/home/me/a, /home/me: /home/mean") == "~/a, ~: /home/mean"
    monkeypatch.setenv("HOME", "/")
    assert without_home("/a/b") == "/a/b"


def test_a_default_model_that_is_not_here_is_a_fault(home):
    (home / "config.toml").write_text('model = "nope"\n')
    for variable, said in (
        (None, "model is nope in the config file: no such"),
        ("x", "model is x in MISTRAL_MLX_MODEL"),
    ):
        env = {**os.environ, **({"MISTRAL_MLX_MODEL": variable} if variable else {})}
        lines = json.loads(run("doctor", "--json", env=env).stdout)["checks"]["config"]["lines"]
        assert lines[0]["state"] == "fault" and said in lines[0]["text"]


def test_doctor_does_not_wait_for_a_fifo(home, tmp_path):
    for name in ("config.toml", "models.json"):
        os.mkfifo(home / name)
        result = run("doctor", env={**os.environ, "MISTRAL_MLX_HOME": str(home)})
        assert result.returncode == 1 and "it is not a regular file" in " ".join(result.stdout.decode().split())
        (home / name).unlink()


def test_a_linked_home_is_not_named_either(tmp_path, monkeypatch):
    (tmp_path / "real").mkdir()
    (tmp_path / "home").symlink_to("real")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert without_home(f"{tmp_path}/real/models and {tmp_path}/home/models") == "~/models and ~/models"
