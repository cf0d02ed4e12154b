"""A repair of BentoML is applied where it fits, and left out where BentoML is not what it was written for."""

import functools
import inspect
import logging
import pkgutil
from collections.abc import Callable
from typing import Any

import bentoml

WRITTEN_FOR = "1.4.40"  # the BentoML that the repairs were last tested with
NEEDS: dict[str, dict[str, list[str]]] = {}  # what each repair patches: places, and the texts that their source holds
logger = logging.getLogger("bentoml.repairs")


def warn_of_another_version() -> None:
    """Log one warning where BentoML is not the version that the repairs were tested with, or where one does not fit."""
    left_out = [name for name in NEEDS if not fits(name)]
    if bentoml.__version__ != WRITTEN_FOR or left_out:
        logger.warning(
            "serving/bentoml_repairs.py was tested with BentoML %s; this is %s. %s "
            "`pip install -r requirements-serving.txt` installs the tested version.",
            WRITTEN_FOR,
            bentoml.__version__,
            f"These repairs do not fit and are left out: {', '.join(left_out)}." if left_out else "Every repair fits.",
        )


def repair(needs: dict[str, list[str]], otherwise: Callable = lambda *_, **__: None) -> Callable:
    """Mark a repair that patches BentoML's inside. Where it does not fit, `otherwise` is called in its place."""

    def decorate(apply: Callable) -> Callable:
        NEEDS[apply.__name__] = needs

        @functools.wraps(apply)
        def apply_if_it_fits(*args: Any, **options: Any) -> Any:
            return (apply if fits(apply.__name__) else otherwise)(*args, **options)

        return apply_if_it_fits

    return decorate


def fits(name: str) -> bool:
    """Whether BentoML still has what a repair patches."""
    try:
        sources = {place: inspect.getsource(pkgutil.resolve_name(place)) for place in NEEDS[name]}
    except (ImportError, AttributeError, OSError, TypeError):  # another version has no such place
        return False
    return all(text in sources[place] for place, texts in NEEDS[name].items() for text in texts)
