"""Prompts that are texts: Jinja, as lm-eval's YAMLs have them, but strict.

`{{ note }}` stands for the record's field `note`. A field that a record lacks is an error and never
an empty place in the prompt, which nobody would see.
"""

import functools
from collections.abc import Mapping
from typing import Any


def fields_in(template: str) -> frozenset[str]:
    """The fields that a template speaks of.

    Raises:
        ValueError: it is no template; the message has the line.
    """
    from jinja2 import TemplateError, meta

    try:
        return frozenset(meta.find_undeclared_variables(_environment().parse(template)))
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        raise ValueError(f"{f'line {line}: ' if line else ''}{error.message}") from error


def rendered(template: str, values: Mapping[str, Any]) -> str:
    """A prompt.

    Raises:
        ValueError: a field is missing, or what the template does with one cannot be done.
    """
    try:
        return str(_compiled(template).render(values))
    except Exception as error:  # a template may run into whatever Python has
        raise ValueError(f"the prompt cannot be made: {error}") from error


@functools.lru_cache(maxsize=256)
def _compiled(template: str) -> Any:
    return _environment().from_string(template)


@functools.cache
def _environment() -> Any:
    """Made when the first prompt is a text: most commands have none."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
