"""Which form of an operation is computed: its definition, or a fast form for a device.

    @operation
    def gelu(x): ...                    # the definition: a formula of a paper or of PyTorch

    @gelu.form("cpu", "gpu")
    def by_error_function(x): ...       # the same to rounding, faster there

Models call `gelu(x)` and know nothing of devices. What is traced inside `using("fast", platform)`
takes the first form for that platform whose condition holds, and else the definition. A form is for
the devices on which it has run; one without a device saves arithmetic or memory on any. What each
earns stands in docs/performance.md; benchmarks/forms.py prints it. One that earns less than 3 % of
a training step or of an extraction, and no memory that is needed, is deleted.
"""

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.ops.precision import exact_products

PLATFORMS = ("cpu", "gpu", "tpu")
OPERATIONS: dict[str, "Operation"] = {}


class Form(NamedTuple):
    function: Callable
    platforms: Sequence[str]
    when: Callable[..., bool]  # of the operation's arguments


class Operation:
    """A function with a definition and forms; calling it computes the form that is in use."""

    def __init__(self, definition: Callable) -> None:
        functools.update_wrapper(self, definition)
        self.definition = definition
        self.forms: list[Form] = []

    def form(
        self, *platforms: str, when: Callable[..., bool] = lambda *_, **__: True
    ) -> Callable[[Callable], Callable]:
        """Add a form for platforms, for all without any, and arguments of which `when` is true."""

        def added(function: Callable) -> Callable:
            self.forms.append(Form(function, platforms or PLATFORMS, when))
            return function

        return added

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        forms, platform = _in_use.get() or ("fast", jax.default_backend())
        if forms == "fast" or self.__name__ in forms.split(","):
            for form in self.forms:
                if platform in form.platforms and form.when(*arguments, **options):
                    return form.function(*arguments, **options)
        return self.definition(*arguments, **options)


def operation(definition: Callable) -> Operation:
    """The definition as an operation, to which forms can be added."""
    OPERATIONS[definition.__name__] = made = Operation(definition)
    return made


_in_use: contextvars.ContextVar = contextvars.ContextVar("forms", default=None)


@contextlib.contextmanager
def using(forms: str, platform: str) -> Iterator[None]:
    """What is traced inside is computed by these forms, for devices of a platform.

    forms: "fast", "plain", or the operations that are fast: "gelu,attention". Without this context
    it is "fast" for JAX's default devices. Raises InputError for what is no operation's name.
    """
    if forms not in ("fast", "plain") and not set(forms.split(",")) <= OPERATIONS.keys():
        raise InputError(
            f"ops.forms = {forms!r}: there is fast, plain, or of {','.join(OPERATIONS)}"
        )
    before = _in_use.set((forms, platform))
    try:
        yield
    finally:
        _in_use.reset(before)


@contextlib.contextmanager
def configured(config: ConfigDict, platform: str = "") -> Iterator[None]:
    """What is traced inside is computed by a configuration's forms, products as exactly as it says.

    platform: of the devices; JAX's default ones if empty.
    """
    platform = platform or jax.default_backend()
    with using(config.ops.forms, platform), exact_products(config.model.compute_dtype):
        yield
