"""Languages: tags that are none are refused, and texts are told apart by code. Imports nothing of agentflow.

The detector is py3langid, a naive Bayes over byte n-grams of some 140 languages (Lui and Baldwin 2012, ACL); its figure
is a probability that is flattened for short texts, so the thresholds here are low.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Final

_WELL_FORMED: Final = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8})*")
# Below the first the detector only guesses; what it gives less than the second is in another language.
_GUESS, _HARDLY = 0.3, 0.1
# What it says of text in no language: code, figures.
_NO_LANGUAGE: Final = "zxx"


def checked_tag(tag: str) -> str:
    """A BCP 47 tag in its usual spelling.

    Raises:
        ValueError: it is not well-formed, or one of its parts is not registered.

    Example:
        >>> checked_tag("PT-br")
        'pt-BR'
    """
    import langcodes

    if not _WELL_FORMED.fullmatch(tag) or not langcodes.tag_is_valid(tag):
        raise ValueError(f"'{tag[:40]}' is no BCP 47 language tag, as 'de' or 'pt-BR' are")
    return langcodes.standardize_tag(tag)


def detectable(tag: str) -> bool:
    """Whether the detector knows the tag's language."""
    return _language(tag) in _detector().labels


def is_in(text: str, tag: str) -> bool | None:
    """Whether a text is in a language; None when that cannot be told: it is too short, or the language not known."""
    if not detectable(tag):
        return None
    label, probability = _detector().classify(text)
    if probability < _GUESS or label == _NO_LANGUAGE:
        return None
    return _language(label) == _language(tag)


def hardly_in(text: str, tag: str) -> bool:
    """Whether a text is surely not in a language. Near relatives (Danish, Norwegian) pass for each other."""
    if not detectable(tag):
        return False
    ranked = _detector().rank(text)
    label, probability = ranked[0]
    share = max(share for other, share in ranked if _language(other) == _language(tag))
    return probability >= _GUESS and label != _NO_LANGUAGE and share < _HARDLY


@functools.cache
def _language(tag: str) -> str:
    """The language alone, by its widest code: nb and nn are no, cmn is zh."""
    import langcodes

    return langcodes.standardize_tag(tag, macro=True).partition("-")[0]


@functools.cache
def _detector() -> Any:
    """Loading takes most of a second, once a process."""
    from py3langid import langid

    library: Any = langid
    return library.LanguageIdentifier.from_model_file(library.MODEL_FILE, norm_probs=True)
