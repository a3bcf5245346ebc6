"""JSON back into frozen records: every field known, there, and of its declared type.

A run folder may be damaged or written by hand; what is wrong with it is named, and never becomes a
record that fails later and elsewhere.
"""

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mingmoe_eval.errors import RunStoreError

_T = TypeVar("_T")
_Check = Callable[[Any], bool]


def build(cls: type[_T], values: Mapping[str, Any]) -> _T:
    """One record, whose fields are all known, all there and all of their types."""
    checks = _checks(cls)  # type: ignore[arg-type]  # a class is hashable
    if unknown := sorted(set(values) - set(checks)):
        raise RunStoreError(
            f"{cls.__name__} has no field {', '.join(map(repr, unknown))}: the file was written by "
            "another version of mingmoe-eval, or edited by hand"
        )
    required = {f.name for f in dataclasses.fields(cls) if _is_required(f)}  # type: ignore[arg-type]
    if missing := sorted(required - set(values)):
        raise RunStoreError(f"{cls.__name__} lacks {', '.join(missing)}")
    for name, value in values.items():
        if not checks[name](value):
            raise RunStoreError(f"{cls.__name__}.{name} cannot be {_shown(value)}")
    return cls(**values)


def as_mapping(value: object) -> Mapping[str, Any]:
    """The value, which must be a JSON object."""
    if not isinstance(value, Mapping):
        raise RunStoreError(f"an object was expected, not {_shown(value)}")
    return value


def as_fields(cls: type, data: object) -> dict[str, Any]:
    """The fields of a record of this class, which must be a JSON object."""
    if not isinstance(data, Mapping):
        raise RunStoreError(f"{cls.__name__} must be an object, not {_shown(data)}")
    return dict(data)


def as_tuple(value: object) -> tuple[Any, ...]:
    """The value, which must be a JSON list."""
    if not isinstance(value, list | tuple):
        raise RunStoreError(f"a list was expected, not {_shown(value)}")
    return tuple(value)


def as_number(value: object) -> float:
    """JSON has no NaN and no infinity: run_store writes them as words, and null means NaN."""
    if value is None:
        return math.nan
    if isinstance(value, float | int) and not isinstance(value, bool):
        with contextlib.suppress(OverflowError):
            return float(value)
    if value in ("nan", "inf", "-inf"):
        return float(value)
    raise RunStoreError(f"a number was expected, not {_shown(value)}")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _is_required(field_: dataclasses.Field[Any]) -> bool:
    missing = dataclasses.MISSING
    return field_.default is missing and field_.default_factory is missing


@functools.cache
def _checks(cls: type) -> dict[str, _Check]:
    """Of each field of a record, whether a value is of its type."""
    return {name: _check_of(hint) for name, hint in get_type_hints(cls).items()}


def _check_of(hint: Any) -> _Check:
    """A test of values for one of the types that the records above are made of."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return lambda value: True
    if origin is Literal:
        return lambda value: isinstance(value, str) and value in arguments
    if origin in (UnionType, Union):
        checks = [_check_of(argument) for argument in arguments]
        return lambda value: any(check(value) for check in checks)
    if origin is tuple:
        each = _check_of(arguments[0])
        length = None if arguments[-1] is ... else len(arguments)
        return lambda value: (
            isinstance(value, tuple) and length in (None, len(value)) and all(map(each, value))
        )
    if origin is Sequence:
        each = _check_of(arguments[0])
        return lambda value: isinstance(value, tuple) and all(map(each, value))
    if origin is Mapping:
        each = _check_of(arguments[1])
        return lambda value: isinstance(value, Mapping) and all(map(each, value.values()))
    if hint is float:
        return _is_number
    # True is an int to Python, but no count.
    return lambda value: isinstance(value, hint) and (hint is bool or not isinstance(value, bool))


def _is_number(value: object) -> bool:
    """Whether a value is a float, or a whole number that a float can hold."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) <= sys.float_info.max
    return isinstance(value, float)
