"""Names that the user registers, changes and removes."""

import shutil

import pytest
from helpers.cli import GREEDY, one_line, run
from helpers.invoke import invoke
from helpers.other_programs import hub_snapshot

from mistral_mlx.cli.models.registry import register, registered
from mistral_mlx.errors import ModelError, OptionError

pytestmark = pytest.mark.usefixtures("disk")


def test_a_conversion_registers_its_result_and_says_what_comes_next(folder, tmp_path):
    result = run("convert", folder, "out", "--group-size", "32", "--name", "mine")
    assert result.stderr.decode().endswith("mistral-mlx: try it: mistral-mlx chat -m mine\n")
    assert registered() == {"mine": tmp_path / "out"}
    other = run("convert", folder, "other", "--group-size", "32", "--name", "mine")
    assert (other.returncode, "mine is the name of" in one_line(other.stderr)) == (2, True)
    assert not (tmp_path / "other").exists()
    again = run("convert", folder, "out", "--group-size", "32", "--name", "mine", "--overwrite", "-q")
    assert (again.returncode, again.stderr) == (0, b"")
    unnamed = run("convert", folder, "un named", "--group-size", "32")
    assert unnamed.stderr.decode().endswith("try it: mistral-mlx chat -m './un named'\n")
    dry = run("convert", folder, "dry", "--group-size", "32", "--name", "dry", "--dry-run")
    assert b"try it" not in dry.stderr and "dry" not in registered()


def test_a_name_is_added_renamed_and_removed_and_the_folder_stays(folder):
    said = invoke("models", "add", "mine", folder)
    assert (said.stdout, said.stderr) == ("", f"mistral-mlx: mine is registered: {folder}\n")
    assert run("complete", "-q", "-m", "mine", *GREEDY, "x").returncode == 0
    assert "mine is called org/mine now" in invoke("models", "rename", "mine", "org/mine").stderr
    assert registered() == {"org/mine": folder}
    assert f"its folder stays: {folder}" in invoke("models", "remove", "org/mine").stderr
    assert registered() == {} and (folder / "config.json").is_file()


def test_a_name_is_not_taken_over(folder, endless):
    register("mine", folder)
    for args in (("add", "mine", endless), ("rename", "other", "mine")):
        register("other", endless)
        with pytest.raises(OptionError, match="free it first: mistral-mlx models remove mine"):
            invoke("models", *args)
    assert registered()["mine"] == folder
    invoke("models", "add", "mine", folder)  # it has it already


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        (("add", "mine", "./nothing"), ModelError, "no such model directory: ./nothing"),
        (("add", "mine", "."), ModelError, "config.json"),
        (("add", "a/b/c", "{folder}"), OptionError, "cannot be a model's name"),
        (("remove", "mine"), OptionError, "no model is registered as mine; registered: none"),
        (("rename", "mine", "other"), OptionError, "no model is registered as mine"),
    ],
)
def test_what_cannot_be_registered_says_why(folder, args, error, said):
    with pytest.raises(error, match=said):
        invoke("models", *(arg.format(folder=folder) for arg in args))
    assert registered() == {}


def test_a_model_that_another_program_has_can_get_a_name(folder, disk):
    snapshot = hub_snapshot(disk / ".cache/huggingface/hub", "a/tiny", folder)
    invoke("models", "add", "mine", "a/tiny")
    assert registered() == {"mine": snapshot}


def test_a_name_whose_folder_has_moved_takes_the_new_place(folder, disk, tmp_path):
    old = shutil.copytree(folder, tmp_path / "old")
    invoke("models", "add", "mine", old)
    old.rename(tmp_path / "new")
    said = one_line(run("info", "mine").stderr)
    assert "is gone; name the new one: mistral-mlx models add mine DIR (or forget the name" in said
    invoke("models", "add", "mine", tmp_path / "new")
    assert invoke("info", "mine").exit_code == 0


def test_a_chat_opens_the_model_that_is_its_argument(folder, home):
    """It used to be: demo is no option."""
    register("mine", folder)
    result = run("chat", "mine", "--no-save", *GREEDY, input=b"Hi\n")
    assert (result.returncode, b"chatting with mine;" in result.stderr) == (0, True)
    run("chat", "mine", "--save", *GREEDY, input=b"Hi\n")
    last = run("chat", "-c", "mine", *GREEDY, input=b"more\n")
    assert (last.returncode, b"resumed, 1 turn" in last.stderr) == (0, True)
    assert "Hi you is no model; a message is typed in the chat" in one_line(run("chat", "Hi you").stderr)
    assert 'with -m: mistral-mlx complete -m mine "Hi you"' in one_line(run("complete", "mine", "Hi", "you").stderr)
    assert b"two models are given, mine and --model other" in run("chat", "mine", "-m", "other").stderr
    assert "no such model directory or registered name: monday (registered: mine)" in one_line(
        run("chat", "monday").stderr
    )
    (home / "sessions" / "monday.json").touch()
    said = one_line(run("chat", "monday").stderr)
    assert said.endswith("monday is no model but a session: mistral-mlx chat --resume monday")
