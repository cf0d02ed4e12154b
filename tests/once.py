"""Things that several tests need, and that take long to make."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest


def once(make: Callable) -> Callable:
    """As functools.cache. What failed a test is not tried again: it fails each test that needs it, in the same words."""
    made: dict[tuple, Any] = {}

    @wraps(make)
    def remembered(*key: Any) -> Any:
        if key not in made:
            try:
                made[key] = make(*key)
            except pytest.fail.Exception as failure:
                made[key] = failure
        if isinstance(made[key], pytest.fail.Exception):
            raise made[key]
        return made[key]

    return remembered
