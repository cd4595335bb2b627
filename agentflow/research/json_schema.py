"""JSON Schemas of strangers: which are accepted, and what of a value does not fit one. Imports nothing of agentflow.

A schema is looked at before anything is done with it: nothing outside of it is referred to, it comes to an end, and
checking a value against it takes bounded time.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

MOST_BYTES: Final = 32_768
# Of the schema with its references followed: nested so deep, so many parts.
MOST_DEPTH: Final = 32
MOST_PARTS: Final = 500
_LONGEST_PATTERN: Final = 500
_PATTERN_S: Final = 0.1
# Their values are data, not schemas.
_DATA: Final = frozenset(("const", "enum", "default", "examples"))
# Their values are schemas by names of the user's own.
_NAMED_SCHEMAS: Final = frozenset(("properties", "$defs", "definitions", "dependentSchemas"))
_REFUSED: Final = ("$dynamicRef", "$recursiveRef", "$anchor", "$dynamicAnchor", "patternProperties")
_SHOWN_FAULTS, _SHOWN_CHARACTERS = 3, 200


def checked_schema(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself, if it can be used.

    Raises:
        ValueError: it is no JSON Schema, too large, too deep, refers outside of itself or to itself without end, or
            uses a keyword that is not offered; the message says which.
    """
    try:
        text = json.dumps(schema)
    except (RecursionError, TypeError, ValueError):
        raise ValueError("cannot be written as JSON, or is nested too deep") from None
    if len(text) > MOST_BYTES:
        raise ValueError(f"has {len(text):,} bytes; the most is {MOST_BYTES:,}")
    _check(text)
    return schema


@functools.lru_cache(maxsize=64)
def _check(text: str) -> None:
    """Look at a schema once: a job's is read again with every look at the job."""
    from jsonschema.exceptions import SchemaError

    schema: Mapping[str, Any] = json.loads(text)
    _Walk(schema).visit(schema)
    try:
        _kind(schema).check_schema(schema)
    except SchemaError as error:
        place = "/".join(map(str, error.absolute_path)) or "it"
        raise ValueError(f"is no JSON Schema: {place}: {error.message[:_SHOWN_CHARACTERS]}") from None


def faults(value: Any, schema: Mapping[str, Any]) -> list[str]:
    """What of a value does not fit a checked schema, in words that a model can act on; empty when it fits."""
    found: list[str] = []
    for error in _validator(schema).iter_errors(value):
        found.append(f"{pointer(list(error.absolute_path)) or 'reply'}: {error.message[:_SHOWN_CHARACTERS]}")
        if len(found) == _SHOWN_FAULTS:
            break
    return found


def pointer(path: Sequence[str | int]) -> str:
    """A place in a JSON value as RFC 6901 writes it.

    Example:
        >>> pointer(["rivers", 0, "km/h"])
        '/rivers/0/km~1h'
    """
    return "".join(f"/{str(part).replace('~', '~0').replace('/', '~1')}" for part in path)


def named_values(schema: Mapping[str, Any]) -> frozenset[str]:
    """Every text that the schema itself names as a value, by ``enum`` or ``const``."""
    return frozenset(_named(schema))


def _named(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in cast("dict[str, Any]", part).items():
            if key in ("const", "enum"):
                values = cast("list[Any]", value) if isinstance(value, list) else [value]
                yield from (text for text in values if isinstance(text, str))
            else:
                yield from _named(value)
    elif isinstance(part, list):
        for value in cast("list[Any]", part):
            yield from _named(value)


class _Walk:
    """A visit to every schema in a schema, references followed: what it comes to the end of is finite, and bounded."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._parts = 0

    def visit(self, part: Any, depth: int = MOST_DEPTH, within: frozenset[str] = frozenset()) -> None:
        """Visit a part. ``within``: the references that led to it."""
        if depth == 0:
            raise ValueError(f"is nested more than {MOST_DEPTH} deep, with its references followed")
        if isinstance(part, list):
            for value in cast("list[Any]", part):
                self.visit(value, depth - 1, within)
        elif isinstance(part, Mapping):
            schema = cast("Mapping[str, Any]", part)
            self._count()
            _check_keywords(schema, schema is self._root)
            for value in _inside(schema):
                self.visit(value, depth - 1, within)
            reference = schema.get("$ref")
            if isinstance(reference, str):
                if reference in within:
                    raise ValueError(f"'{reference[:100]}' refers to itself: that has no end")
                self.visit(_referred(reference, self._root), depth - 1, within | {reference})

    def _count(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise ValueError(f"has more than {MOST_PARTS:,} parts, with its references followed")


def _inside(schema: Mapping[str, Any]) -> Iterator[Any]:
    """The values of a schema that are schemas, or hold some."""
    for key, value in schema.items():
        if key in _NAMED_SCHEMAS and isinstance(value, Mapping):
            yield from cast("Mapping[str, Any]", value).values()
        elif key not in _DATA:
            yield value


def _check_keywords(schema: Mapping[str, Any], is_root: bool) -> None:
    for keyword in _REFUSED:
        if keyword in schema:
            raise ValueError(f"'{keyword}' is not offered here")
    if "$id" in schema and not is_root:
        raise ValueError("'$id' is offered at the top alone")
    pattern = schema.get("pattern")
    if isinstance(pattern, str):
        _check_pattern(pattern)


def _check_pattern(pattern: str) -> None:
    import regex

    if len(pattern) > _LONGEST_PATTERN:
        raise ValueError(f"a pattern has {len(pattern):,} characters; the most is {_LONGEST_PATTERN}")
    try:
        regex.compile(pattern)
    except regex.error as error:
        raise ValueError(f"pattern '{pattern[:60]}' is no regular expression: {error}") from None


def _referred(reference: str, root: Mapping[str, Any]) -> Any:
    """The part that a reference means.

    Raises:
        ValueError: it leads outside of the schema, or to nothing.
    """
    if reference != "#" and not reference.startswith("#/"):
        raise ValueError(f"'$ref': '{reference[:100]}' leads outside: only '#/...' is followed")
    found: Any = root
    for name in reference[1:].split("/")[1:]:
        name = name.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            raise ValueError(f"'$ref': there is nothing at '{reference[:100]}'")
        found = cast("Mapping[str, Any]", found)[name]
    return found


def _kind(schema: Mapping[str, Any]) -> Any:
    """The validator of the draft that a schema names; of 2020-12 where it names none.

    Raises:
        ValueError: it names a draft that is not known.
    """
    from jsonschema import Draft202012Validator, validators

    named = schema.get("$schema")
    if named is None:
        return Draft202012Validator
    find, unknown = cast("Any", validators.validator_for), object()
    known = find({"$schema": named}, unknown) if isinstance(named, str) else unknown
    if known is unknown:
        raise ValueError(f"'$schema': '{str(named)[:100]}' is no draft that is known here")
    return known


def _validator(schema: Mapping[str, Any]) -> Any:
    import regex
    from jsonschema import ValidationError, validators
    from referencing import Registry

    extend = cast("Any", validators.extend)  # pyright: ignore[reportUnknownMemberType]
    nothing: Registry[Any] = Registry()

    def matches(_: Any, pattern: str, value: Any, __: Any) -> Iterator[ValidationError]:
        """Patterns are strangers': one that takes long is ended, and does not fit."""
        if not isinstance(value, str):
            return
        try:
            if regex.search(pattern, value, timeout=_PATTERN_S) is None:
                yield ValidationError(f"does not match the pattern '{pattern}'")
        except TimeoutError:
            yield ValidationError(f"the pattern '{pattern}' takes too long on it")

    # Nothing is ever fetched: without a registry of others, a schema knows what it holds itself.
    return extend(_kind(schema), {"pattern": matches})(schema, registry=nothing)
