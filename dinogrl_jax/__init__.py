"""Video-based visible-infrared person re-identification in JAX."""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dinogrl_jax.retrieval.store.gallery import Gallery
    from dinogrl_jax.training.api.evaluation import evaluate
    from dinogrl_jax.training.api.model import load

__version__ = "0.1.0"
__all__ = ["Gallery", "evaluate", "load"]

_PLACES = {  # imported when somebody asks: JAX takes a second to import
    "Gallery": "retrieval.store.gallery",
    "evaluate": "training.api.evaluation",
    "load": "training.api.model",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
