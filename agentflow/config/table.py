"""What every table of the configuration has in common: unknown keys are refused, and values are checked."""

from __future__ import annotations

import re
from collections.abc import Collection
from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False)]
# Dollars for a million tokens or for one of another unit.
Rate = Annotated[Decimal, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
# Tags of residency, as in ("eu",).
Tags = tuple[Annotated[str, Field(min_length=1)], ...]


def _variable_name(value: str | None) -> str | None:
    """Accept the name of a variable; refuse what is, or looks like, a key itself. The value is never repeated."""
    if value is None:
        return None
    spelled = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value)
    branded = re.match(r"(sk|pk|rk|gsk|hf|xai|ghp|AIza|AKIA|pplx|nvapi)[-_A-Z0-9a-z]{12,}", value)
    random = len(value) >= 20 and "_" not in value and any(c.isdigit() for c in value)
    if not spelled or branded or random:
        raise ValueError("must be the name of an environment variable, as in OPENAI_API_KEY, not a key itself")
    return value


def _address(value: str) -> str:
    """Accept http(s) addresses without a password in them."""
    if not re.match(r"https?://[^/?#@\s]+(?:[/?#]|$)", value):
        raise ValueError("must be an http:// or https:// address without a user or password in it")
    return value


VariableName = Annotated[str | None, AfterValidator(_variable_name)]
HttpAddress = Annotated[str, AfterValidator(_address)]
Address = HttpAddress | None


class Table(BaseModel):
    """One table: frozen, without keys that nobody reads."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    def said(self, names: Collection[str]) -> list[str]:
        """Which of these settings are other than when they are left out."""
        fields = type(self).model_fields
        return sorted(name for name in names if getattr(self, name) != fields[name].get_default())
