"""Chat templates: Jinja programs that come with a model and lay out a conversation as text."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tokenization.errors import TokenizerError


@dataclass(frozen=True)
class ChatTemplate:
    """A template's source and the token names it may use (`bos_token`, `eos_token`, ...)."""

    source: str
    names: Mapping[str, str] = field(default_factory=dict)

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Returns the conversation as text that ends where the assistant is to speak.

        Raises TokenizerError for an empty conversation, or with what the template said.
        """
        if not messages:
            raise TokenizerError("the conversation has no messages; give at least one")
        try:
            return self._template.render(
                messages=messages,
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self.names,
            )
        # A template is a program from a file, run on messages from outside: it fails in any
        # of the ways expressions fail.
        except (jinja2.TemplateError, TypeError, ValueError, LookupError, ArithmeticError) as error:
            raise TokenizerError(f"the chat template refused the messages: {error}") from error

    @cached_property
    def _template(self) -> jinja2.Template:
        # The options and helpers are those that templates in model repositories are written for.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[LoopControlExtension, _Generation]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
        return environment.from_string(self.source)


class _Generation(Extension):
    """`{% generation %}` marks the assistant's words for training; here it is just its body."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _to_json(value: Any, indent: int | None = None) -> str:
    # Jinja's own filter escapes <, > and & for HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
