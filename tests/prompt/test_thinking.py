"""Thinking in messages and the effort of v15, against mistral-common; versions told apart in tokenizer.json."""

import json

import pytest
from helpers.messages import HOSTILE, UNICODE, assistant, system, user
from helpers.oracle import REFUSED, ours, text, thinking, truth
from helpers.tokenizer_files import byte_level_folder, special_names, tekken, tekken_document, tekken_folder, write_json
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mistral_mlx import OptionError, encode_chat, load_tokenizer

SYSTEM = [text("Think first: "), thinking("your thoughts"), text("Then answer.")]
THINKING_CHATS = {
    "answered": [user("Hi"), assistant([thinking("Hmm. "), text("Hello! ")]), user("2+3?")],
    "in the system prompt": [system(SYSTEM), user("Hi")],
    "only thinking": [user("a"), assistant([thinking("b")]), user("c")],
    "open": [user("a"), assistant([thinking("Hmm", closed=False)])],
    "open inside": [user("a"), assistant([thinking("b", closed=False), text("c")]), user("d")],
    "several": [user("a"), assistant([thinking("b"), thinking("c"), text("d"), text("e"), thinking("f")]), user("g")],
    "two answers": [user("a"), assistant([thinking("b"), text("c")]), assistant([text("d"), thinking("e")]), user("f")],
    "text chunks": [system([text("a"), text("b")]), user([text("c"), text(""), text("d ")]), assistant([text("e ")])],
    "unicode": [system([thinking(UNICODE)]), user(UNICODE), assistant([thinking(UNICODE), text(UNICODE)])],
    "control text": [system([thinking(HOSTILE)]), user(HOSTILE), assistant([thinking("[/THINK]" + HOSTILE)])],
    "of a user": [user([thinking("a")])],
}


@pytest.mark.parametrize("effort", [None, "none", "high", "low"])
@pytest.mark.parametrize("chat", THINKING_CHATS)
def test_thinking_has_the_ids_of_mistral_common(mistral, chat, effort):
    tokenizer, oracle = mistral
    expected = truth(oracle, THINKING_CHATS[chat], effort=effort)
    assert ours(tokenizer, THINKING_CHATS[chat], effort=effort) == expected
    if chat == "answered":
        is_known = tokenizer.version in ("v13", "v15") and effort in (None, *("none high".split()))
        assert (expected != REFUSED) == (is_known and (effort is None or tokenizer.version == "v15"))


def test_marks_of_thinking_in_a_text_stay_text(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 3000, "v13"))
    marked = "a [THINK]b[/THINK] c"
    messages = [system(marked), user(marked), assistant([thinking(marked), text(marked)]), user(marked)]
    ids = encode_chat(tokenizer, messages)
    assert (ids.count(34), ids.count(35)) == (1, 1)
    assert tokenizer.decode(ids).count(marked) == 5


def test_reasoning_beside_the_content_is_a_chunk_in_front(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 3000, "v13"))
    chunks = [user("a"), assistant([thinking("b"), text("c ")]), user("d")]
    assert encode_chat(tokenizer, [user("a"), assistant("c ", reasoning="b"), user("d")]) == encode_chat(
        tokenizer, chunks
    )
    with pytest.raises(OptionError, match="reasoning and chunks of thinking"):
        encode_chat(tokenizer, [user("a"), assistant([thinking("b")], reasoning="b")])
    with pytest.raises(OptionError, match="the reasoning of message 1"):
        encode_chat(tokenizer, [{**user("a"), "reasoning": "b"}])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([{"type": "image_url", "image_url": "x"}], "chunk of the type image_url; give a text, or chunks of the types"),
        ([{"type": "text"}], "a chunk of text without a text under 'text'"),
        ([thinking(7)], "a chunk of thinking without a text under 'thinking'"),
        ([thinking("a", closed="no")], "closed in the content of message 2 is no"),
        (7, "content of message 2 is 7; give a text or a list of chunks"),
    ],
)
def test_impossible_chunks_are_refused(content, said, tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v13"))
    with pytest.raises(OptionError, match=said):
        encode_chat(tokenizer, [user("a"), assistant(content)])


def test_an_effort_that_a_model_lacks_is_refused_by_name(tmp_path):
    tokenizer = load_tokenizer(tekken_folder(tmp_path, 300, "v15"))
    with pytest.raises(OptionError, match="reasoning_effort is low; this model knows none, high"):
        encode_chat(tokenizer, [user("a")], reasoning_effort="low")
    with pytest.raises(OptionError, match="reasoning_effort is high; this model has no such setting"):
        encode_chat(tokenizer, [user("a")], reasoning_effort="high", template="v13")


@pytest.mark.parametrize("entry", [None, {"values": ["low", "max"], "default": "max"}])
def test_the_settings_of_the_file_hold(entry, tmp_path):
    """A v15 file may know other efforts, or none, and then its chats have no settings."""
    entry = entry and {"type": "enum", "accepts_none": True, **entry}
    document = tekken_document(3000, "v15") | {"model_settings_builder": {"reasoning_effort": entry}}
    write_json(tmp_path, "tekken.json", document)
    tokenizer, oracle = load_tokenizer(tmp_path), MistralTokenizer.from_file(str(tmp_path / "tekken.json"))
    for effort in (None, "low", "high") if entry else (None,):
        assert ours(tokenizer, [user("a")], effort=effort) == truth(oracle, [user("a")], effort=effort)
    assert (36 in encode_chat(tokenizer, [user("a")])) == (entry is not None)


# tokenizer.json


@pytest.mark.parametrize("version", ["v11", "v13", "v15"])
def test_a_tokenizer_json_is_told_by_its_control_tokens(version, tmp_path):
    """All of these were taken for v7, so that chats with v15 silently lacked their settings."""
    original, exported = tekken(3000, version)
    (tmp_path / "tokenizer.json").write_text(exported)
    write_json(tmp_path, "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    (tmp_path / "tekken.json").write_text(original)
    tokenizer, oracle = load_tokenizer(tmp_path), MistralTokenizer.from_file(str(tmp_path / "tekken.json"))
    assert tokenizer.version == version and type(tokenizer).__name__ == "HuggingFaceTokenizer"
    for chat in THINKING_CHATS.values():
        assert ours(tokenizer, chat) == truth(oracle, chat)
    effort = "high" if version == "v15" else None
    assert ours(tokenizer, [system("s"), user("a")], effort=effort) == truth(
        oracle, [system("s"), user("a")], effort=effort
    )


MISTRAL_V3 = "{{ bos_token }}{% for m in messages %}[INST]{{ m.content }}[/INST]{% endfor %}"


@pytest.mark.parametrize(
    ("names", "template", "version"),
    [
        ("v7", MISTRAL_V3, "v3"),
        ("v7", MISTRAL_V3 + "[SYSTEM_PROMPT]", "v7"),
        ("v7", None, "v7"),
        ("v13", MISTRAL_V3 + "[SYSTEM_PROMPT][CALL_ID]", "v11"),
        ("v13", MISTRAL_V3 + "[SYSTEM_PROMPT][ARGS]", "v13"),
        ("v15", MISTRAL_V3, "v15"),
    ],
)
def test_a_template_tells_versions_apart_that_name_the_same_tokens(names, template, version, tmp_path):
    """A vocabulary of v3 may name [SYSTEM_PROMPT], as GGUF files from a tekken.json do; it was taken for v7."""
    listed = special_names("v11")[:20] if names == "v7" else special_names(names)
    (tmp_path / "tokenizer.json").write_text(tekken(300, "v3", tuple(listed))[1])
    config = {"bos_token": "<s>", "eos_token": "</s>"} | ({"chat_template": template} if template else {})
    tokenizer = load_tokenizer(write_json(tmp_path, "tokenizer_config.json", config))
    assert tokenizer.version == version
    system_ids = [tokenizer.control["[SYSTEM_PROMPT]"], *tokenizer.encode("s")]
    assert (encode_chat(tokenizer, [system("s"), user("a")])[1:3] == system_ids) == (version != "v3")


def test_a_model_with_another_format_cannot_think(tmp_path):
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    tokenizer = load_tokenizer(byte_level_folder(tmp_path, chat_template=template))
    with pytest.raises(OptionError, match="chunks of thinking, which only models with v13 or v15"):
        encode_chat(tokenizer, [user("a"), assistant([thinking("b")])])
    chunks = encode_chat(tokenizer, [user([text("a"), text("b")])])
    assert chunks == encode_chat(tokenizer, json.loads('[{"role": "user", "content": "a\\n\\nb"}]'))
