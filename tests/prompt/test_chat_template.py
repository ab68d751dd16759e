"""Untrusted chat templates: what they may do, and that the rest ends early in one line."""

import resource
import time

import pytest

from mistral_mlx.errors import TokenizerError
from mistral_mlx.prompt.template import TemplateRejection, render_chat

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": " hi "}]


def render(template, messages=MESSAGES, **options):
    options = {"add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"} | options
    return render_chat(template, messages, **options)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ bos_token }}{% for m in messages %}{{ m['role'] }}:{{ m.content | trim }};{% endfor %}",
         "<s>system:Be brief.;user:hi;"),
        ("{% if tools is not none %}T{% endif %}{% if documents %}D{% endif %}{{ eos_token }}", "</s>"),
        ("  {% if add_generation_prompt %}\na{% endif %}\n", "a"),
        ("{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ loop.index }}{% break %}{% endfor %}",
         "2"),
        ("{{ loop_messages }}{{ messages[1:] | length }}{{ messages[-1].role }}{{ messages | length }}", "1user2"),
        ("{% for m in messages %}{{ loop.length }}{{ loop.last }}{{ loop.previtem is defined }}{% endfor %}",
         "2FalseFalse2TrueTrue"),
        ("{% macro show(m, end='.') %}{{ m.role ~ end }}{% endmacro %}"
         "{{ show(messages[0]) }}{{ show(messages[1], end='!') }}", "system.user!"),
        ("{% generation %}{{ messages[1].content.strip().upper() }}{% endgeneration %}", "HI"),
        ("{{ {'b': [1, 'é<'], 'a': none} | tojson }}", '{"b": [1, "é<"], "a": null}'),
        ("{{ {'a': [1]} | tojson(indent=2) }}", '{\n  "a": [\n    1\n  ]\n}'),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join('|') }}", " hi "),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }},{% endfor %}", "role=system,content=Be brief.,"),
        ("{{ 'a-b'.split('-')[1] + '-'.join(['x', 'y']) }}{{ 'aXb' | replace('X', '') }}{{ 'ab'[::-1] }}", "bx-yabba"),
        ("{{ 'a\nb' | indent(2) }}{{ 7 % 4 }}{{ 7 // 2 }}{{ 2 ** 3 }}{{ -1 + 2 * 3 }}", "a\n  b3385"),
        ("{{ 'x' if 'brief' in messages[0].content and messages is not string else 'y' }}", "x"),
        ("{{ '<&\"' | e }}{{ '<' | safe }}{{ undefined_thing }}{{ none }}{{ true }}{{ 1.5 }}",
         "&lt;&amp;&#34;<NoneTrue1.5"),
        ("{% set text %}a{{ messages | length }}{% endset %}{{ text }}{% filter upper %}b{% endfilter %}", "a2B"),
    ],
)  # fmt: skip
def test_what_chat_templates_use_works(template, text):
    assert render(template) == text


def test_date_of_today_can_be_asked_for():
    assert render("{{ strftime_now('%Y') }}") == time.strftime("%Y")


def test_messages_are_not_changed():
    messages = [{"role": "user", "content": "a"}]
    render("{% set m = messages[0] %}{{ m.content }}", messages)
    assert messages == [{"role": "user", "content": "a"}]


def test_refusal_by_the_template_is_told_apart():
    with pytest.raises(TemplateRejection, match="refuses these messages: no tools"):
        render("{{ raise_exception('no tools') }}")


BIG = "{% set big = 'x' * 1000000 %}"
DEEP = "{% set ns = namespace(x=['x']) %}{% for i in range(40) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}"
COSTLY = {
    "loop": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "filtered loop": BIG + "{% set b = big ~ '' %}{% for i in range(99999) if b != big %}{% endfor %}",
    "macro": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "endless macro": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "text times number": "{{ 'x' * 10000000000 }}",
    "list times number": "{% set a = 10000000000 * [1] %}",
    "power": "{{ 99999999 ** 99999999 }}",
    "factorial": "{% set ns = namespace(x=2) %}{% for i in range(99) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubling by ~": "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubling by +": "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubling by set": "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}"
    "{% endset %}{% endfor %}",
    "text of the template": "{% for i in range(99999) %}" + "x" * 60000 + "{% endfor %}",
    "lists in lists": DEEP,
    "dicts in dicts": DEEP.replace("[ns.x, ns.x]", "dict(a=ns.x, b=ns.x)"),
    "join": BIG + "{% set many = [big] * 10000 %}{{ many | join(big) | length }}",
    "join method": BIG + "{{ big.join('x' * 100000) | length }}",
    "json": BIG + "{% set many = [big] * 10000 %}{{ many | tojson | length }}",
    "replace": BIG + "{{ big | replace('x', big) | length }}",
    "replace method": BIG + "{{ big.replace('', big) | length }}",
    "indent": "{{ ('\n' * 2000000) | indent(32) }}",
    "wide indent": "{{ 'x' | indent(10000000000) }}{{ [1] | tojson(indent=10000000000) }}",
    "slices": BIG + "{% for i in range(99999) %}{% set a = big[1:] %}{% endfor %}",
    "trim": "{% set b = ' ' * 4000000 %}{% for i in range(99999) %}{% set a = b | trim %}{% endfor %}",
    "strip": "{% set b = ' ' * 4000000 %}{% for i in range(99999) %}{% set a = b.strip() %}{% endfor %}",
    "search": BIG + "{% for i in range(99999) %}{% if 'y' in big %}{% endif %}{% endfor %}",
    "search in range": "{% for i in range(99999) %}{% if 'y' in range(99999) %}{% endif %}{% endfor %}",
    "sort": "{% for i in range(99999) %}{% set a = range(99999) | sort %}{% endfor %}",
    "select": "{% for i in range(99999) %}{% set a = range(99999) | select('odd') | list %}{% endfor %}",
    "generators": "{% set a = range(99999)" + " | select" * 2000 + " %}{{ a | list }}",
    "changed": BIG + "{% for i in range(99999) %}{% if loop.changed(big ~ '') %}{% endif %}{% endfor %}",
    "parentheses": "{{ " + "(" * 9000 + "1" + ")" * 9000 + " }}",
    "statements": "{{ a }}" * 14000,
    "length": "x" * 100_001,
}


@pytest.mark.parametrize("template", COSTLY)
def test_costly_templates_are_refused_soon_and_small(template):
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(TokenizerError, match="chat template") as caught:
        render(COSTLY[template])
    assert time.process_time() - started < 2
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    assert "MemoryError" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "named"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "__class__"),
        ("{{ cycler.__init__.__globals__.os.system('id') }}", "__init__"),
        ("{{ messages.append(1) }}", "append"),
        ("{{ ['']| map(attribute='__class__.__mro__') | first }}", "__class__"),
        ("{{ 'x'.ljust(10000000000) }}", "str.ljust"),
        ("{{ '{:>9999999999}'.format('x') }}", "format"),
        ("{{ '%9999999999s' % 'x' }}", "%"),
        ("{{ '%9999999999s' | format('x') }}", "format"),
        ("{{ 'x' | center(10000000000) }}", "center"),
        ("{{ ['x'] | map('center', 10000000000) | first }}", "center"),
        ("{{ lipsum(n=100000000) }}", "lipsum"),
        ("{{ (1).to_bytes(10000000000, 'big') }}", "int.to_bytes"),
        ("{% include '/etc/passwd' %}", "Include"),
        ("{% import 'a' as b %}", "Import"),
        ("{% extends 'a' %}", "Extends"),
        ("{% block a %}{% endblock %}", "Block"),
        ("{% for i in messages recursive %}{{ loop(messages) }}{% endfor %}", "recursive loop"),
        ("{{ messages }}", "list"),
        ("{{ messages[0] | string }}", "dict"),
        ("{% for m in messages %}", "does not parse"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ nothing() }}", "nothing"),
        ("{{ raise_exception(messages) }}", "list"),
        ("{{ strftime_now('%Y' * 100) }}", "date"),
    ],
)
def test_what_no_template_may_do_is_refused_by_name(template, named):
    with pytest.raises(TokenizerError) as caught:
        render(template)
    assert named in str(caught.value) and str(caught.value).isprintable()


def test_budget_grows_with_the_messages():
    loop = "{% for i in range(40) %}{% for m in messages %}{{ m.content }}{% endfor %}{% endfor %}"
    messages = [{"role": "user", "content": "x" * 500_000}]
    assert len(render(loop.replace("40", "20"), messages)) == 10_000_000
    with pytest.raises(TokenizerError, match="takes more than"):
        render(loop.replace("40", "60"), messages)


def test_the_same_template_always_costs_the_same():
    template = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    messages = set()
    for _ in range(2):
        with pytest.raises(TokenizerError) as caught:
            render(template)
        messages.add(str(caught.value))
    assert len(messages) == 1
