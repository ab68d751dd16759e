"""The system prompt that comes with a model: read when asked for, with a channel of its own for thinking."""

import datetime

import pytest
from helpers.messages import system, user
from helpers.oracle import text, thinking
from helpers.tokenizer_files import mistral_folder, tekken_folder

from mistral_mlx import ModelError, OptionError, encode_chat, load_tokenizer
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.prompt.official import official_prompt, spelled, system_of

REASONING = "# HOW\n\nThink first, as in:[THINK]your thoughts[/THINK]Here, answer.\n"


def official(path, content=REASONING, version="v13"):
    """Return the official system prompt of a model with `content`, and its tokenizer."""
    tokenizer = load_tokenizer(tekken_folder(path, 3000, version))
    (path / "SYSTEM_PROMPT.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    return official_prompt(ModelFolder(path), tokenizer), tokenizer


def test_its_marks_are_control_tokens_where_the_model_has_them(tmp_path):
    content, tokenizer = official(tmp_path)
    chunks = [text("# HOW\n\nThink first, as in:"), thinking("your thoughts", closed=True), text("Here, answer.")]
    assert content == chunks and spelled(content) == REASONING.strip()
    ids = encode_chat(tokenizer, [system(content), user("a")])
    assert (ids.count(34), ids.count(35)) == (1, 1)
    assert encode_chat(tokenizer, [system(REASONING.strip()), user("a")]).count(34) == 0


@pytest.mark.parametrize("version", ["v7", "v11", "v15"])
def test_its_marks_are_text_where_the_format_has_none(version, tmp_path):
    assert official(tmp_path, version=version)[0] == REASONING.strip()


@pytest.mark.parametrize("content", ["a [/THINK] b [THINK] c", "a [THINK] b", "a"])
def test_single_marks_are_text(content, tmp_path):
    assert official(tmp_path, content)[0] == content


def test_name_and_date_are_filled_in(tmp_path):
    folder = tmp_path / "Mistral-Small"
    folder.mkdir()
    today = datetime.date.today()
    content, _ = official(folder, "You are {name}. Today is {today}, after {yesterday}. {other}")
    assert content == f"You are Mistral-Small. Today is {today}, after {today - datetime.timedelta(days=1)}. {{other}}"


def test_only_the_word_for_it_means_it(tmp_path):
    content, tokenizer = official(tmp_path, "Be brief.")
    assert system_of("@model", tmp_path, tokenizer) == content == "Be brief."
    assert (system_of("@models", tmp_path, tokenizer), system_of(None, tmp_path, tokenizer)) == ("@models", None)


@pytest.mark.parametrize(
    ("content", "said"), [(b"\xff", "not UTF-8"), (b" \n", "is empty"), (b"a" * 70_000, "more than 65,536")]
)
def test_one_that_cannot_be_used_is_refused(content, said, tmp_path):
    with pytest.raises(ModelError, match=said):
        official(tmp_path, content)


def test_a_model_without_one_says_so(tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, "v3"))
    with pytest.raises(OptionError, match=r"has no SYSTEM_PROMPT\.txt; give the text"):
        system_of("@model", tmp_path, tokenizer)
