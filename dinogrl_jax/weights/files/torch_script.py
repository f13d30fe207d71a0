"""The pickle of a TorchScript archive: modules with their attributes, of which tensors are read.

Modules are inert: each is a dictionary of what the archive says are its attributes. The code beside
the pickle is not looked at.
"""

import pickle
from collections.abc import Iterator

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.weights.files.state_dicts import LONGEST_NAME, MOST_TENSORS
from dinogrl_jax.weights.files.torch_pickle import GLOBALS, Unpickler
from dinogrl_jax.weights.files.torch_types import Nothing, Tensor, printable

CLASSES = "__torch__."  # in front of the names of an archive's own classes
DEEPEST = 50  # modules in each other; CLIP has 6


class Module(dict):
    """A module's tensors and modules; of its class there is the name, and no behaviour."""

    name = ""
    is_built = False


class ScriptUnpickler(Unpickler):
    """Builds modules of tensors and plain values, and refuses all else by name."""

    def find_class(self, module, name):
        full = f"{module}.{name}"
        if full.startswith(CLASSES):
            return Nothing(full)
        if full not in GLOBALS:
            raise InputError(refusal(full))
        return GLOBALS[full]

    def load_reduce(self):
        if isinstance(self.stack[-2], Nothing):
            raise InputError(f"calls {printable(self.stack[-2].name)}, which is no function")
        super().load_reduce()

    def load_newobj(self):
        arguments, owner = self.stack.pop(), self.stack.pop()
        if not isinstance(owner, Nothing):
            raise InputError(refusal(name_of(owner), "makes an object of"))
        if arguments != ():
            raise InputError(f"makes {printable(owner.name)} with arguments")
        made = Module()
        made.name = owner.name
        self.append(made)

    def load_newobj_ex(self):
        raise InputError(refusal(name_of(self.stack[-3]), "makes an object of"))

    def load_build(self):
        attributes, made = self.stack.pop(), self.stack[-1]
        if not isinstance(made, Module):
            raise InputError(refusal(name_of(made), "gives attributes to"))
        if type(attributes) is not dict or made.is_built:
            what = "twice" if made.is_built else f"as a {type(attributes).__name__}"
            raise InputError(f"gives attributes to {printable(made.name)} {what}")
        self.stream.spend(len(attributes))  # which may be there once, for many modules
        made.is_built = True
        made.update(
            (key, item)
            for key, item in attributes.items()
            if isinstance(key, str) and isinstance(item, Tensor | Module)
        )

    dispatch = Unpickler.dispatch | {
        ord(pickle.REDUCE): load_reduce,
        ord(pickle.NEWOBJ): load_newobj,
        ord(pickle.NEWOBJ_EX): load_newobj_ex,
        ord(pickle.BUILD): load_build,
    }


def name_of(value: object) -> str:
    """What an archive calls a class or a function, and of other values their type."""
    if isinstance(value, Nothing | Module):
        return value.name
    names = (name for name, made in GLOBALS.items() if made is value)
    return next(names, type(value).__name__)


def refusal(name: object, does: str = "refers to") -> str:
    cure = ""
    if str(name).startswith("torch.jit."):  # attributes that are lists, say
        cure = ": save its weights alone, torch.save(torch.jit.load(FILE).state_dict(), NEW_FILE)"
    return f"{does} {printable(name)}, which is not read of TorchScript{cure}"


def module_tensors(tree: object) -> dict[str, Tensor]:
    """The tensors of a module by the names that its state_dict() has: its own ones, then deeper.

    Raises InputError for what is no module, one without tensors, one that holds itself, and for
    too many or too deep ones.
    """
    if not isinstance(tree, Module):
        raise InputError("is TorchScript, and holds no module")
    found: dict[str, Tensor] = {}
    for count, (name, item) in enumerate(_items(tree, "", ())):
        if count > MOST_TENSORS:
            raise InputError(f"{printable(name)}: is one of more than {MOST_TENSORS:,} tensors")
        if name in found:
            raise InputError(f"{printable(name)}: is there twice")
        if isinstance(item, Tensor):
            found[name] = item
    if not found:
        raise InputError("is TorchScript, and holds no tensors")
    return found


def _items(
    module: Module, prefix: str, around: tuple[Module, ...]
) -> Iterator[tuple[str, Tensor | Module]]:
    """The tensors and modules of a module with their whole names; around: modules that hold it."""
    if any(module is other for other in around):
        raise InputError(f"{printable(prefix[:-1])}: is a module that holds itself")
    if len(around) > DEEPEST:
        raise InputError(f"{printable(prefix[:-1])}: is a module in more than {DEEPEST} others")
    for wanted in (Tensor, Module):  # its own tensors come first
        for key, item in module.items():
            if not isinstance(item, wanted):
                continue
            name = prefix + key
            if len(name) > LONGEST_NAME:
                raise InputError(f"{printable(name)}: is too long a name")
            yield name, item
            if isinstance(item, Module):
                yield from _items(item, f"{name}.", (*around, module))
