"""Rematerialisation: what the backward pass keeps of a block, and what it computes again.

    block = remat(Bottleneck, config.model.remat)

Each policy keeps more memory than the one before and computes less again. A block's input is kept
anyway. Moments of normalisations are always kept: they are small, and take two passes to compute.
"""

from collections.abc import Callable

import jax
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name  # noqa: F401

from dinogrl_jax.interface.errors import lookup

# Names that values in models and operations have for `checkpoint_name`.
MOMENTS = "moments"  # of a normalisation
NARROW = "narrow"  # what a block's narrow convolution returns, a quarter of its input

_NAMED = jax.checkpoint_policies.save_only_these_names(MOMENTS, NARROW)
_PRODUCTS = jax.checkpoint_policies.dots_saveable  # results of matrix products and convolutions
POLICIES = {
    "blocks": _NAMED,
    "elementwise": jax.checkpoint_policies.save_from_both_policies(_NAMED, _PRODUCTS),
    "nothing": None,  # is computed again
}


def remat(module: type[nn.Module], policy: str, **options) -> type[nn.Module] | Callable:
    """The module's class, whose inside the backward pass computes again as the policy says.

    Raises InputError for a policy that is not there.
    """
    rule = lookup(POLICIES, policy, "model.remat")
    return module if rule is None else nn.remat(module, policy=rule, **options)
