"""Chat templates."""

import json
from pathlib import Path

import pytest
from tiny_tokenizers import byte_level_library

from tokenization import Tokenizer, TokenizerError, load_tokenizer
from tokenization.chat import ChatTemplate

HI = [{"role": "user", "content": "Hi"}]


def _load(folder: Path, **config: object) -> Tokenizer:
    byte_level_library().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return load_tokenizer(folder)


def test_special_tokens_in_the_template_are_parsed(tmp_path: Path) -> None:
    template = (
        "{{ bos_token }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer = _load(tmp_path, bos_token="<|bos|>", chat_template=template)
    ids = tokenizer.apply_chat_template(HI)
    assert ids[:2] == [0, 1]  # BOS once, though the tokenizer adds one to plain text
    assert ids.count(0) == 1 and ids.count(1) == 2 and ids.count(2) == 1
    assert tokenizer.decode(ids) == "user\nHiassistant\n"


def test_the_default_of_several_templates(tmp_path: Path) -> None:
    templates = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": "yes"}]
    tokenizer = _load(tmp_path, chat_template=templates)
    assert tokenizer.decode(tokenizer.apply_chat_template(HI)) == "yes"


def test_a_template_in_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].content }}!")
    tokenizer = _load(tmp_path)
    assert tokenizer.decode(tokenizer.apply_chat_template(HI)) == "Hi!"


def test_no_template_is_said_plainly(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match="no chat template"):
        _load(tmp_path).apply_chat_template(HI)


def test_helpers_that_published_templates_use() -> None:
    template = (
        "{%- for m in messages %}\n"
        "    {%- if loop.index0 == 1 %}{% break %}{% endif %}\n"
        "    {% generation %}{{ m | tojson }}{% endgeneration %}\n"
        "{%- endfor %}{{ strftime_now('%Y')[:2] }}{{ tools is none }}"
    )
    messages = [{"role": "user", "content": "<\u00e9>"}, {"role": "x", "content": "y"}]
    text = ChatTemplate(template).render(messages)
    assert text == '{"role": "user", "content": "<\u00e9>"}20True'


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].content | nothing }}", "nothing"),
        ("{% if %}", "refused"),
        ("{{ messages[0].content + 1 }}", "refused"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
        ("{{ messages.append(1) }}", "refused"),
    ],
)
def test_a_template_that_fails(template: str, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        ChatTemplate(template).render(HI)


def test_an_empty_conversation() -> None:
    with pytest.raises(TokenizerError, match="no messages"):
        ChatTemplate("x").render([])
