"""VLD's prompts (IMLP): a sentence for each identity, of which some words are learned."""

from collections.abc import Sequence

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

SPREAD = 0.02  # of the learned vectors at the start; about that of CLIP's words


class Prompts(nn.Module):
    """The embedded tokens of a sentence for each identity, up to its end.

    Words that are not learned are parameters as well, which nothing trains: published files have
    them in place of a vocabulary, with what fills the positions behind the end.

    learned: positions of the learned vectors, one after the other; length: of the sentence.
    """

    identities: int
    learned: Sequence[int]
    length: int
    positions: int
    width: int

    @nn.compact
    def __call__(self) -> Float[Array, "ids n d"]:
        count, first = len(self.learned), self.learned[0]
        last, init = first + count, nn.initializers.normal(SPREAD)
        learned = self.param("learned", init, (self.identities, count, self.width))
        prefix = self.param("prefix", init, (1, first, self.width))
        suffix = self.param("suffix", init, (1, self.positions - last, self.width))
        fixed = (prefix, suffix[:, : self.length - last])
        prefix, suffix = (jnp.broadcast_to(x, (len(learned), *x.shape[1:])) for x in fixed)
        return jnp.concatenate([prefix, learned, suffix], axis=1)
