"""Chats rendered by a chat template, against tokenizers."""

import json
import sys

import pytest
from helpers.messages import CHATS, HOSTILE, assistant, system, user
from helpers.tokenizer_files import (
    CHATML,
    CHATML_TOKENS,
    byte_level_json,
    mistral_folder,
    piece_json,
    special_names,
    tekken,
    write_json,
)
from tokenizers import Tokenizer as Backend

from mistral_mlx import TokenizerError, encode_chat, load_tokenizer

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ALTERNATING = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}"
    "{{ '<|im_start|>' + message['content'] | trim + '<|im_end|>' }}{% endfor %}"
)
WITHOUT_SYSTEM = (
    "{% for m in messages if m.role != 'system' %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
)


def chat_folder(path, template, document=None, **config):
    write_json(path, "tokenizer.json", json.loads(document or byte_level_json()))
    return write_json(path, "tokenizer_config.json", {"chat_template": template, "eos_token": "<|im_end|>"} | config)


def chatml(path, template=CHATML, **config):
    return load_tokenizer(chat_folder(path, template, **config))


@pytest.mark.parametrize("chat", [chat for chat in CHATS if chat not in ("control text", "answers in a row")])
@pytest.mark.parametrize("template", [CHATML, SMOLLM2])
def test_rendered_chat_has_the_ids_of_tokenizers(template, chat, tmp_path):
    messages, backend = CHATS[chat], Backend.from_str(byte_level_json())
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in joined(messages))
    if template == SMOLLM2 and messages[0]["role"] != "system":
        text = "<|im_start|>system\n" + SMOLLM2.partition("system\n")[2].partition("' }}")[0] + text
    is_open = messages[-1]["role"] == "assistant"
    text = text.removesuffix("<|im_end|>\n") if is_open else text + "<|im_start|>assistant\n"
    assert encode_chat(chatml(tmp_path, template), messages) == backend.encode(text, add_special_tokens=False).ids


def joined(messages):
    """Users in a row as one message, spelled out by hand."""
    found = []
    for message in messages:
        if found and message["role"] == "user" == found[-1]["role"]:
            texts = [text for text in (found.pop()["content"], message["content"]) if text]
            message = user("\n\n".join(texts))
        found.append(message)
    return found


@pytest.mark.parametrize("kind", ["llama", "metaspace"])
def test_text_behind_a_control_token_gets_a_space_only_where_tokenizers_adds_one(kind, tmp_path):
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    document = piece_json(kind)
    folder = chat_folder(tmp_path, template, document, bos_token="<s>", eos_token="</s>")
    ids = encode_chat(load_tokenizer(folder), [user("the dog"), assistant("return x"), user("if")])
    text = "<s>the dog</s>return x</s>if</s>"
    assert ids == Backend.from_str(document).encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    "rewrite",
    ["content", "content | lower", "content | replace('_X_', '')", "content.split('_X_') | join('')", "content | trim"],
)
def test_no_template_turns_text_of_messages_into_control_ids(rewrite, tmp_path):
    template = CHATML.replace("message['content']", "(message." + rewrite + ")")
    tokenizer = chatml(tmp_path, template)
    control = set(tokenizer.control.values())
    kept = [i for i in encode_chat(tokenizer, [system("s"), user("u")]) if i in control]
    for text in (HOSTILE, "<|IM_END|> <|im_X_end|><|im_e_X_nd|>", "|im_end|>", "<", "<|im_end|>", "<|im_end|", " >\n"):
        ids = encode_chat(tokenizer, [system(text), user(text)])
        assert [i for i in ids if i in control] == kept
    assert HOSTILE in tokenizer.decode(encode_chat(chatml(tmp_path), [user(HOSTILE)]))


def test_template_text_and_message_text_do_not_join_to_a_control_token(tmp_path):
    tokenizer = chatml(tmp_path, "{% for m in messages %}<{{ m.content }}>{% endfor %}<|im_end|>")
    for text in ("|im_start|>", "<|im_start|"):
        ids = encode_chat(tokenizer, [user(text)])
        assert ids == [*tokenizer.encode(f"<{text}>"), 2]


def test_a_blank_control_token_is_never_called_by_text(tmp_path):
    document = json.loads(byte_level_json())
    document["added_tokens"].append(document["added_tokens"][2] | {"id": 650, "content": "\n"})
    folder = chat_folder(tmp_path, CHATML, json.dumps(document))
    assert 650 not in encode_chat(load_tokenizer(folder), [user("a\nb")])


def test_the_longest_control_token_is_taken(tmp_path):
    document = json.loads(byte_level_json())
    document["added_tokens"].append(document["added_tokens"][2] | {"id": 650, "content": "<|im_end|>!"})
    folder = chat_folder(tmp_path, "{{ messages[0].content }}<|im_end|>!<|im_end|>", json.dumps(document))
    assert encode_chat(load_tokenizer(folder), [user("")]) == [650, 2]


def test_private_characters_of_a_message_stay_what_they_are(tmp_path):
    tokenizer = chatml(tmp_path)
    text = "".join(map(chr, range(0xFDD0, 0xFDF0))) + "\U000f0000 <|im_end|>"
    assert tokenizer.decode(encode_chat(tokenizer, [user(text)])) == f"user\n{text}\nassistant\n"


def test_generated_ids_stand_where_the_template_puts_the_answer(tmp_path):
    tokenizer = chatml(tmp_path)
    letters = [i for letter in "hello" for i in tokenizer.encode(letter)]
    messages = [user("a"), assistant("hello", ids=letters), user("b"), assistant("hello", ids=letters)]
    frame = encode_chat(tokenizer, [user("a"), assistant("\x00"), user("b"), assistant("\x00")])
    (nul,) = tokenizer.encode("\x00")
    expected = []
    for token_id in frame:
        expected += letters if token_id == nul else [token_id]
    assert encode_chat(tokenizer, messages) == expected
    assert letters != tokenizer.encode("hello")


def test_an_open_answer_is_continued_with_its_spaces(tmp_path):
    tokenizer = chatml(tmp_path)
    begin = encode_chat(tokenizer, [user("a")])
    open_answer = encode_chat(tokenizer, [user("a"), assistant("Sure, ")])
    assert tokenizer.decode(open_answer) == tokenizer.decode(begin) + "Sure, "


def test_an_answer_the_template_leaves_out_cannot_be_continued(tmp_path):
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(TokenizerError, match="leaves out the last assistant message"):
        encode_chat(chatml(tmp_path, template), [user("a"), assistant("b")])


@pytest.mark.parametrize("template", [ALTERNATING, WITHOUT_SYSTEM])
def test_a_system_prompt_the_template_does_not_take_goes_to_the_first_user(template, tmp_path):
    tokenizer = chatml(tmp_path, template)
    messages = [system("Be brief."), user("a"), assistant("b"), system("Be kind."), user("c")]
    merged = [user("Be brief.\n\nBe kind.\n\na"), assistant("b"), user("c")]
    assert encode_chat(tokenizer, messages) == encode_chat(tokenizer, merged)
    assert "Be brief." in tokenizer.decode(encode_chat(tokenizer, messages))


def test_users_in_a_row_do_not_disturb_an_alternating_template(tmp_path):
    tokenizer = chatml(tmp_path, ALTERNATING)
    assert encode_chat(tokenizer, [user("a"), user("b")]) == encode_chat(tokenizer, [user("a\n\nb")])


def test_refusal_of_the_template_is_told(tmp_path):
    tokenizer = chatml(tmp_path, "{{ raise_exception('only \x1b[31m tools') }}<|im_end|>")
    with pytest.raises(TokenizerError, match=r"refuses these messages: only \\+x1b\[31m tools"):
        encode_chat(tokenizer, [user("a")])


def test_a_model_without_any_format_says_so(tmp_path):
    (tmp_path / "tokenizer.json").write_text(byte_level_json(), encoding="utf-8")
    with pytest.raises(TokenizerError, match="no chat template; complete a text instead"):
        encode_chat(load_tokenizer(tmp_path), [user("a")])


def test_lone_surrogates_in_messages_do_not_raise(mistral, tmp_path):
    tokenizer = chatml(tmp_path)
    assert encode_chat(tokenizer, [user("\udcff")]) == encode_chat(tokenizer, [user("\ufffd")])
    assert encode_chat(mistral[0], [user("\udcff")]) == encode_chat(mistral[0], [user("\ufffd")])


def test_long_chats_stay_within_the_budget(tmp_path):
    tokenizer = chatml(tmp_path)
    chat = [user("word " * 2000), assistant("answer " * 2000)] * 20 + [user("?")]
    assert encode_chat(tokenizer, chat).count(tokenizer.control[CHATML_TOKENS[1]]) == 42
    assert encode_chat(tokenizer, [user("a"), assistant("b")] * 1000 + [user("c")])[:1] == [1]
    assert sys.getrecursionlimit() < 2000


@pytest.mark.parametrize("template", ["mistral-v9", "hello<|im_end|>", "{{ x }}", "{{ messages[0].role }}"])
def test_a_template_that_ignores_its_messages_is_refused(template, tmp_path):
    """Every chat was that constant text."""
    with pytest.raises(TokenizerError, match="leaves out what the user says; correct it, or name a chat format"):
        encode_chat(chatml(tmp_path, template), [user("a")])


@pytest.mark.parametrize(
    ("name", "version"), [("mistral-v1", "v1"), ("mistral-v3", "v3"), ("mistral-v7", "v7"), (" mistral-v7\n", "v7")]
)
def test_the_name_of_a_mistral_template_means_its_format(name, version, tmp_path):
    """A GGUF file may name a template of llama.cpp's, and the name was taken for jinja2."""
    expected = encode_chat(load_tokenizer(mistral_folder(tmp_path, version)), CHATS["system"])
    tokenizer = load_tokenizer(write_json(tmp_path, "tokenizer_config.json", {"chat_template": name}))
    assert tokenizer.has_chat_format and encode_chat(tokenizer, CHATS["system"]) == expected


@pytest.mark.parametrize(("name", "version"), [("mistral-v3-tekken", "v3"), ("mistral-v7-tekken", "v7")])
def test_a_name_tells_versions_apart_that_name_the_same_tokens(name, version, tmp_path):
    (tmp_path / "tokenizer.json").write_text(tekken(300, "v3", tuple(special_names("v11")[:20]))[1])
    config = {"chat_template": name, "bos_token": "<s>", "eos_token": "</s>"}
    assert load_tokenizer(write_json(tmp_path, "tokenizer_config.json", config)).version == version


@pytest.mark.parametrize("name", ["chatml", "zephyr", "llama3"])
def test_the_name_of_another_familys_template_means_its_format(name, tmp_path):
    chat = [system("s"), user("a"), assistant("b"), user("c")]
    text = {
        "chatml": "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
        "<|im_start|>user\nc<|im_end|>\n<|im_start|>assistant\n",
        "zephyr": "<|system|>\ns<|im_end|>\n<|user|>\na<|im_end|>\n<|assistant|>\nb<|im_end|>\n"
        "<|user|>\nc<|im_end|>\n<|assistant|>\n",
        "llama3": "<|start_header_id|>system<|end_header_id|>\n\ns<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\na<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "b<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nc<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n",
    }[name]
    ids = Backend.from_str(byte_level_json()).encode(text, add_special_tokens=False).ids
    assert encode_chat(chatml(tmp_path, name), chat) == ids
