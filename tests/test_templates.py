"""Chat templates: what puts together the name of Python's inner parts is not called harmless."""

from __future__ import annotations

import pytest

from inspection.report import SAFE, UNKNOWN, UNSAFE
from inspection.texts import chat_template

# each gives "__class__" without saying it; behind it, without Jinja's sandbox, comes any code
MADE = {
    "times": "{{ ''['_' * 2 ~ 'class' ~ '_' * 2] }}",
    "sum": "{{ ''['_' + '_class_' + '_'] }}",
    "format": "{{ ''['%c%c' | format(95, 95) ~ 'class'] }}",
    "percent": "{{ ''[('%c' % 95) * 2 ~ 'class'] }}",
    "method": "{{ ''['%c'.format(95)] }}",
    "join": "{{ ''[['_', '_', 'class', '_', '_'] | join] }}",
    "replace": "{{ ''['@@class@@' | replace('@', '_')] }}",
    "replace, method": "{{ ''['@@class@@'.replace('@', '_')] }}",
    "backwards": "{{ ''['_' ~ '_ssalc_'[::-1]] }}",
    "from another text": "{% set u = (lipsum | string)[18] %}{{ ''[u * 2 ~ 'class'] }}",
    "key of a dictionary": "{{ ''[{'@@class@@'.replace('@', '_'): 1} | first] }}",
    "decoded": "{{ ''['%5F%5Fclass' | urlencode] }}",
    "cut out": "{{ ''['x__class__'[1:]] }}",
    "stripped": "{{ ''[' __class__' | trim] }}",
    "variable": "{% set k = '@@class@@' | replace('@', '_') %}{{ ''[k] }}",
    "variable of a variable": "{% set k = j %}{% set j = '_' * 2 %}{{ ''[k] }}",
    "block": "{% set k %}{{ '_' }}{{ '_' }}class{% endset %}{{ ''[k] }}",
    "loop": "{% for k in ['@@class@@' | replace('@', '_')] %}{{ ''[k] }}{% endfor %}",
    "macro": "{% macro f(k) %}{{ ''[k] }}{% endmacro %}{{ f('@@class@@' | replace('@', '_')) }}",
    "namespace": "{% set n = namespace(k='@@class@@' | replace('@', '_')) %}{{ ''[n.k] }}",
    "in a namespace": "{% set n = namespace() %}{% set n.k = '_' ~ '_' %}{{ ''[n.k] }}",
    "with": "{% with k = '@@class@@' | replace('@', '_') %}{{ ''[k] }}{% endwith %}",
    "map": "{{ [''] | map(attribute='_' * 2 ~ 'class') | list }}",
    "map of a filter": "{% set k = ['@@class@@'] | map('replace', '@', '_') | first %}{{ ''[k] }}",
    "sort": "{{ [''] | sort(attribute='@@class@@' | replace('@', '_')) }}",
    "groupby": "{{ [''] | groupby('@@class@@' | replace('@', '_')) }}",
}


@pytest.mark.parametrize("name", MADE)
def test_a_name_that_is_put_together_is_not_judged(name: str) -> None:
    for text in (MADE[name], "{% if messages %}" + MADE[name] + "{% endif %}"):
        found = chat_template(text, "it")
        assert found.answer == UNKNOWN
        assert "puts together the name" in found.reason


def test_a_name_that_stands_there_as_the_name_of_an_argument_is_found() -> None:
    assert chat_template("{{ ''[dict(__class__=1) | first] }}", "it").answer == UNSAFE


HONEST = [
    "{% for m in messages[1:] %}{{ m['role'] + ': ' + m['content'] | trim }}{% endfor %}",
    "{% for m in messages %}{% if messages[loop.index0 - 1].role != m.role %}{{ m }}{% endif %}{% endfor %}",
    "{% set ns = namespace(last=messages | length - 1) %}{{ messages[ns.last].content }}",
    "{% set ns = namespace(i=0) %}{% for m in chat %}{% set ns.i = ns.i + 1 %}{% endfor %}{{ chat[ns.i] }}",
    "{% for key in tool.keys() | reject('in', ['name']) %}{{ tool[key] | tojson }}{% endfor %}",
    "{% for key, value in tool.arguments | items %}{{ key ~ '=' ~ tool.arguments[key] }}{% endfor %}",
    "{% for name in tool.required | sort %}{{ tool.parameters.properties[name].type }}{% endfor %}",
    "{% macro show(kind, all) %}{{ all[kind]['type'] }}{% endmacro %}{{ show('a', tools) }}",
    "{% set name = 'a' ~ 'b' %}{{ messages | map(attribute='content') | join(name) }}",
    "{% set first = messages | selectattr('role', 'equalto', 'system') | first %}{{ first['content'] }}",
]


@pytest.mark.parametrize("text", HONEST)
def test_what_honest_templates_look_up_is_no_reason(text: str) -> None:
    assert chat_template(text, "it").answer == SAFE
