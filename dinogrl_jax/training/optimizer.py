"""Adam, with rates and decays that differ from group to group of parameters."""

import re
from collections.abc import Callable, Sequence
from functools import partial

import jax
import optax
from ml_collections import ConfigDict

from dinogrl_jax.methods.contract import Group
from dinogrl_jax.ops.barrier import barrier

B1, B2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's


def group_of(path: str, groups: Sequence[Group]) -> Group | None:
    """The first group whose pattern fits a parameter's whole path below "params": a/b/kernel."""
    return next((group for group in groups if re.fullmatch(group.pattern, path)), None)


def optimizer(groups: Sequence[Group], config: ConfigDict) -> optax.GradientTransformation:
    """Adam (decay in the gradient) and AdamW (decay beside it), as each group says.

    Clipping, of the gradient of all parameters, comes before the decay, as with PyTorch's
    clip_grad_norm_. All that it is given to update has to be in a group with a rate.

    config: the section `optimizer`.
    """

    def each(transformation: Callable[[Group], optax.GradientTransformation]):
        """A transformation of each group, of its parameters alone."""

        def of_group(group: Group) -> optax.GradientTransformation:
            def is_member(path: tuple, _: object) -> bool:
                name = jax.tree_util.keystr(path, simple=True, separator="/")
                return group_of(name, groups) is group

            members = partial(jax.tree_util.tree_map_with_path, is_member)
            return optax.masked(transformation(group), members)

        return optax.chain(*(of_group(group) for group in groups if group.rate is not None))

    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(
        clip,
        # A CPU has all gradients before it begins with any moment: less has to be kept at once.
        optax.stateless(lambda gradients, _: barrier(gradients)),
        each(lambda group: decay(group, decoupled=False)),
        computed_first(optax.scale_by_adam(B1, B2, EPSILON)),
        each(lambda group: decay(group, decoupled=True)),
        # Behind a barrier, or XLA would compute the rate in the loop of each array.
        each(lambda group: optax.scale_by_learning_rate(lambda step: barrier(group.rate(step)))),
    )


def decay(group: Group, decoupled: bool) -> optax.GradientTransformation:
    """The decay of a group whose decay is beside the gradient, or in it; else nothing."""
    added = group.decay and group.decoupled == decoupled
    return optax.add_decayed_weights(group.decay) if added else optax.identity()


def computed_first(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation whose moments are computed before what is made of them: 0.4 GiB less."""

    def update(updates: dict, state: tuple, params: dict | None = None) -> tuple:
        return barrier(inner.update(updates, state, params))

    return optax.GradientTransformation(inner.init, update)
