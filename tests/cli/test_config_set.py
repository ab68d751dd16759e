"""`config set` and `config unset` change one value of the file, and nothing else in it."""

import os

import pytest
from helpers.environment import run

from mistral_mlx.cli.models.registry import register
from mistral_mlx.cli.options.config_edit import with_value, without_value
from mistral_mlx.errors import OptionError

MINE = """\
# my settings

model = "demo"  # the small one
stop = [
  "a",  # one = two
  "b",
]

# for talking
[chat]
temperature = 0.4

[complete]
top-k = 3
"""


@pytest.mark.parametrize(
    ("table", "key", "value", "old", "new"),
    [
        ("", "model", "x # y", 'model = "demo"  # the small one', 'model = "x # y"  # the small one'),
        ("", "stop", ["c"], 'stop = [\n  "a",  # one = two\n  "b",\n]', 'stop = ["c"]'),
        ("", "seed", 3, '  "b",\n]\n', '  "b",\n]\nseed = 3\n'),
        ("chat", "temperature", 1.0, "temperature = 0.4", "temperature = 1.0"),
        ("chat", "seed", 7, "temperature = 0.4\n", "temperature = 0.4\nseed = 7\n"),
        ("complete", "top_k", 9, "top-k = 3", "top-k = 9"),
        ("bench", "json", True, "top-k = 3\n", "top-k = 3\n\n[bench]\njson = true\n"),
        ("chat", "system", 'a "b"\n\x7f☃', "0.4\n", '0.4\nsystem = "a \\"b\\"\\n\\u007f☃"\n'),
    ],
)
def test_one_value_is_changed_and_the_rest_stays(table, key, value, old, new):
    changed = with_value(MINE, table, key, value)
    assert changed == MINE.replace(old, new, 1)
    assert with_value(changed, table, key, value) == changed


def test_a_value_goes_where_a_draft_has_it_and_into_an_empty_file():
    draft = "# head\n\n# seed = …  # help\n# top_k = 0\n\n# [chat]\n# seed = 1\n"
    assert with_value(draft, "", "seed", 5) == draft.replace("help\n", "help\nseed = 5\n")
    assert with_value("", "", "seed", 5) == "seed = 5\n"
    assert with_value("seed = 1", "chat", "seed", 5) == "seed = 1\n\n[chat]\nseed = 5\n"
    assert with_value("# a\n\n# of chat\n[chat]\n", "", "seed", 5) == "# a\n\nseed = 5\n# of chat\n[chat]\n"


def test_a_value_is_removed_with_its_comment():
    assert without_value(MINE, "", "model") == MINE.replace('model = "demo"  # the small one\n', "")
    assert without_value(MINE, "", "stop") == MINE.replace('stop = [\n  "a",  # one = two\n  "b",\n]\n', "")
    assert without_value(MINE, "complete", "top_k") == MINE.replace("top-k = 3\n", "")
    assert without_value(MINE, "", "temperature") is None


def test_what_is_removed_leaves_no_blank_line_of_its_own():
    """The file used to begin with an empty line."""
    rest = "[chat]\nseed = 1\n"
    assert without_value(f"seed = 2\n\n{rest}", "", "seed") == rest
    assert without_value(f"# mine\n\nseed = 2\n\n{rest}", "", "seed") == f"# mine\n\n{rest}"
    assert without_value(f"seed = 2\n{rest}", "", "seed") == rest
    assert without_value("seed = 2\n", "", "seed") == ""


def test_what_is_no_statement_of_its_own_is_refused():
    inline = "chat = { seed = 1, top_k = 2 }\n"
    for change in (lambda: with_value(inline, "chat", "seed", 5), lambda: without_value(inline, "chat", "seed")):
        with pytest.raises(OptionError, match="seed cannot be changed here"):
            change()
    assert with_value("chat.seed = 1\n", "chat", "seed", 5) == "chat.seed = 5\n"


def test_set_and_unset_say_what_they_did(config):
    result = run("config", "set", "chat.temperature", "0.25")
    assert (result.stdout, result.stderr) == ("", f"mistral-mlx: chat.temperature is 0.25 now, in {config}\n")
    assert run("config", "set", "--dry-penalty-last-n", "-1").returncode == 0
    assert run("config", "set", "stop", "a", "b").returncode == 0
    assert run("config", "set", "exact", "off").returncode == 0
    assert config.read_text() == (
        "[chat]\ntemperature = 0.25\n".join(['dry_penalty_last_n = -1\nstop = ["a", "b"]\nexact = false\n', ""])
    )
    result = run("config", "set", "--temp", "1", MISTRAL_MLX_TEMPERATURE="2")
    assert result.stderr.endswith("; MISTRAL_MLX_TEMPERATURE is set, too, and comes first\n")
    assert run("config", "unset", "stop").stderr == f"mistral-mlx: stop is no longer set in {config}\n"
    assert run("config", "unset", "stop").stderr == f"mistral-mlx: error: stop is not set in {config}\n"
    assert "stop" not in config.read_text()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("temprature", "1"), "there is no option temprature; did you mean temperature?"),
        (("chatt.seed", "1"), "there is no command chatt; did you mean chat?"),
        (("overwrite", "on"), "overwrite cannot be set here: give --overwrite on the command line"),
        (("temperature", "hot"), "temperature is hot; it must be a number"),
        (("temperature", "nan"), "temperature is nan; it must be a number"),
        (("temperature", "-5"), "temperature is -5.0; it must be a number of at least 0"),
        (("device", "tpu"), "device is tpu; it must be auto, cpu or gpu"),
        (("seed", "1", "2"), "seed is 1 2; it must be a whole number"),
        (("raw", "perhaps"), "raw is perhaps; it must be true or false"),
        (("model", "no/where"), "no/where is not on this disk"),
    ],
)
def test_what_would_be_wrong_is_refused(config, args, said):
    config.write_text("seed = 1\n")
    result = run("config", "set", *args)
    assert result.returncode in (2, 3) and said in result.stderr and result.stderr.count("\n") == 1
    assert config.read_text() == "seed = 1\n"


def test_a_wrong_file_can_be_mended_and_what_is_no_toml_is_left_alone(config):
    config.write_text("modle = 'x'\nseed = 1\n")
    assert run("config", "set", "seed", "2").returncode == 0
    assert run("config", "unset", "modle").returncode == 0
    assert config.read_text() == "seed = 2\n"
    config.write_text("temp = 1\ntemperature = 2\n")
    assert run("config", "unset", "temp").returncode == 0
    assert config.read_text() == "temperature = 2\n"
    config.write_text("[")
    result = run("config", "set", "seed", "2")
    assert (result.returncode, "is not TOML" in result.stderr, config.read_text()) == (2, True, "[")


def test_a_model_is_kept_as_a_name_or_a_whole_path(config, tmp_path):
    (tmp_path / "folder").mkdir()
    register("mine", tmp_path / "folder")
    assert run("config", "set", "model", "mine").returncode == 0
    assert config.read_text() == 'model = "mine"\n'
    assert run("config", "set", "model", os.path.relpath(tmp_path / "folder")).returncode == 0
    assert config.read_text() == f'model = "{tmp_path / "folder"}"\n'


def test_a_link_to_the_file_and_its_mode_stay(config, tmp_path):
    real = tmp_path / "dotfiles.toml"
    real.write_text("# mine\n")
    real.chmod(0o644)
    config.symlink_to(real)
    assert run("config", "set", "seed", "2").returncode == 0
    assert config.is_symlink() and real.read_text() == "# mine\nseed = 2\n"
    assert real.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in tmp_path.glob("*.partial")) == []
