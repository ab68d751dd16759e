"""The chat templates that a GGUF file may name instead of writing them: those of llama.cpp that our models use.

A name is no template: as jinja2 it is a constant text, which is the same for every chat.
"""

_SYSTEM_IN_USER = (
    "{% set ns = namespace(system='') %}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{% set ns.system = ns.system + m['content'] + '\\n\\n' %}{% elif m['role'] == 'user' %}"
    "{{ @BEGIN@ + ns.system + m['content'] + @END@ }}{% set ns.system = '' %}{% else %}{{ @ANSWER@ + eos_token }}"
    "{% endif %}{% endfor %}"
)
_SYSTEM_APART = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'system' %}"
    "{{ '[SYSTEM_PROMPT]@SPACE@' + m['content'] + '[/SYSTEM_PROMPT]' }}{% elif m['role'] == 'user' %}"
    "{{ '[INST]@SPACE@' + m['content'] + '[/INST]' }}{% else %}{{ '@SPACE@' + m['content'] + eos_token }}"
    "{% endif %}{% endfor %}"
)


def _in_user(begin: str, end: str, answer: str) -> str:
    parts = {"@BEGIN@": f"'{begin}'", "@END@": f"'{end}'", "@ANSWER@": answer}
    template = _SYSTEM_IN_USER
    for place, part in parts.items():
        template = template.replace(place, part)
    return "{{ bos_token }}" + template


NAMED = {
    "mistral-v1": _in_user(" [INST] ", " [/INST]", "' ' + m['content']"),
    "mistral-v3": _in_user("[INST] ", "[/INST]", "' ' + m['content'] | trim"),
    "mistral-v3-tekken": _in_user("[INST]", "[/INST]", "m['content']"),
    "mistral-v7": _SYSTEM_APART.replace("@SPACE@", " "),
    "mistral-v7-tekken": _SYSTEM_APART.replace("@SPACE@", ""),
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    ),
    "zephyr": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + eos_token + '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}"
    ),
    "llama3": (
        "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' +"
        " m['content'] | trim + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
    ),
}


def template_named(text: str) -> str:
    """Return the template that `text` names, or `text` itself if it is no such name."""
    return NAMED.get(text.strip(), text)
