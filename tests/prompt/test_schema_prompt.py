"""How a prompt tells the model what JSON its answer is to be."""

import json

import pytest
from helpers.tokenizer_files import EFFORT, byte_level_folder, tekken_document, write_json
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mistral_mlx import encode_chat, load_tokenizer

SCHEMA = {"type": "object", "properties": {"ort": {"type": "string"}, "größe": {"type": "number"}}, "required": ["ort"]}
LINE = "Answer only with JSON that follows this JSON Schema: " + json.dumps(SCHEMA, ensure_ascii=False)
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]


@pytest.mark.parametrize("effort", [None, "high"])
@pytest.mark.parametrize("messages", [ASKED, ASKED[1:], [*ASKED, {"role": "assistant", "content": "a"}, ASKED[1]]])
def test_a_v15_that_has_the_setting_gets_it_as_mistral_common_writes_it(tmp_path, effort, messages):
    settings = {"reasoning_effort": EFFORT, "json_schema": {"type": "json_schema"}}
    write_json(tmp_path, "tekken.json", tekken_document(3000, "v15") | {"model_settings_builder": settings})
    tokenizer = load_tokenizer(tmp_path)
    form = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
    request = ChatCompletionRequest(messages=messages, reasoning_effort=effort, response_format=form)
    wanted = MistralTokenizer.from_file(str(tmp_path / "tekken.json")).encode_chat_completion(request).tokens
    assert encode_chat(tokenizer, messages, reasoning_effort=effort, schema=SCHEMA) == wanted


def test_every_other_format_gets_a_line_at_the_end_of_the_system_prompt(mistral):
    tokenizer, _ = mistral
    told = [{"role": "system", "content": f"Be brief.\n\n{LINE}"}, ASKED[1]]
    assert encode_chat(tokenizer, ASKED, schema=SCHEMA) == encode_chat(tokenizer, told)
    told = [{"role": "system", "content": LINE}, ASKED[1]]
    assert encode_chat(tokenizer, ASKED[1:], schema=SCHEMA) == encode_chat(tokenizer, told)


def test_a_system_prompt_in_chunks_keeps_them(mistral):
    tokenizer, _ = mistral
    chunks = [{"role": "system", "content": [{"type": "text", "text": "Be brief."}]}, ASKED[1]]
    assert LINE in tokenizer.decode(encode_chat(tokenizer, chunks, schema=SCHEMA))


def test_a_template_of_another_kind_gets_the_line_too(tmp_path):
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    tokenizer = load_tokenizer(byte_level_folder(tmp_path, chat_template=template, eos_token="<|im_end|>"))
    assert f"system\n{LINE}" in tokenizer.decode(encode_chat(tokenizer, ASKED[1:], schema=SCHEMA))
