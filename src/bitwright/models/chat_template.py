"""Chat templates: jinja2 programs that come with a model and put a conversation into the words it was trained on.

They are other people's programs, so they run in jinja2's sandbox. They expect the environment that transformers gives
them: blocks trimmed, `break` and `continue`, a `tojson` that keeps Unicode, `raise_exception`, `strftime_now`, and the
`generation` block (which marks the model's own words for training, and here is just its content).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from bitwright.errors import TokenizerError


def render(template: str, messages: Sequence[Mapping[str, Any]], bos_token: str, eos_token: str) -> str:
    """The prompt up to where the model's answer begins. Raises `TokenizerError` with what the template complains of."""
    try:
        return _compile(template).render(
            messages=[dict(message) for message in messages],
            bos_token=bos_token,
            eos_token=eos_token,
            add_generation_prompt=True,
            tools=None,
            documents=None,
        )
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as fault:
        reason = " ".join(str(fault).split())[:200] or type(fault).__name__
        raise TokenizerError(f"the chat template refuses this conversation: {reason}; check the roles and their order") from fault


class _Generation(jinja2.ext.Extension):
    """`{% generation %}...{% endgeneration %}` is what stands between."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=8)
def _compile(template: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(template)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
