"""Train the demo's stand-in for DINOv2: dinogrl_jax pretrain --out walker_vit.pth

No weights of DINOv2 can be shipped, and a random transformer knows nothing of people. This trains
the small transformer of configs/synthetic.py to outline other synthetic people (another seed) in
both modalities; like DINOv2 it then knows persons from background, and no identity of the demo.
"""

import argparse
import runpy
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from PIL import Image

from dinogrl_jax.data.transforms import DEVIATION, MEAN
from dinogrl_jax.data.walkers import synthetic
from dinogrl_jax.interface.arguments import Parser, path, whole_number
from dinogrl_jax.interface.errors import run
from dinogrl_jax.interface.progress import Progress
from dinogrl_jax.models.dinov2 import DINOv2
from dinogrl_jax.weights.conversion import to_state
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.published import dinov2_rules

SEED = 20_000  # of people that no demo uses
SYNTHETIC = Path(__file__).parents[1] / "configs" / "synthetic.py"
CONFIG = runpy.run_path(str(SYNTHETIC))["get_config"]().model.dinov2


class Outliner(nn.Module):
    """Frames → a logit of the silhouette for every pixel, linear in the last tokens."""

    @nn.compact
    def __call__(self, frames):
        tokens = DINOv2(CONFIG, jnp.float32, name="dinov2")(frames).last
        logits = nn.Dense(CONFIG.patch**2, name="outline")(tokens)
        f, h, w, _ = logits.shape
        logits = logits.reshape(f, h, w, CONFIG.patch, CONFIG.patch).swapaxes(2, 3)
        return logits.reshape(f, h * CONFIG.patch, w * CONFIG.patch)


def options_from_command_line() -> argparse.Namespace:
    parser = Parser(__doc__)
    out = "PyTorch file to write, in DINOv2's naming"
    parser.add_argument("--out", required=True, type=path, help=out)
    parser.add_argument("--identities", type=whole_number(1), default=300, help="default 300")
    parser.add_argument("--steps", type=whole_number(1), default=700, help="default 700")
    parser.add_argument("--batch", type=whole_number(1), default=96, help="frames, default 96")
    return parser.parse_args()


def frames_and_outlines(identities: int) -> tuple[np.ndarray, np.ndarray]:
    """Frames uint8 [n, h, w, 3] and silhouettes bool [n, h, w] of generated people."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "people"
        size = {"height": CONFIG.height, "width": CONFIG.width}
        count = {"train_identities": identities, "test_identities": 1}
        clips = {"tracklets_per_identity": 2, "frames_per_tracklet": 12}
        synthetic.generate(root, seed=SEED, silhouettes=True, **size, **count, **clips)
        paths = sorted((root / "Train").rglob("*.jpg"))
        outlines = [root / "silhouettes" / p.relative_to(root).with_suffix(".png") for p in paths]
        frames = np.stack([np.asarray(Image.open(p).convert("RGB")) for p in paths])
        return frames, np.stack([np.asarray(Image.open(p).convert("L")) > 127 for p in outlines])


def augmented_frames(key, frames, outlines):
    """Normalised frames, mirrored and shifted with their outlines, half of them in grey."""
    mirror, grey, shift = jax.random.split(key, 3)
    flip = jax.random.bernoulli(mirror, shape=(len(frames), 1, 1))
    outlines = jnp.where(flip, outlines[:, :, ::-1], outlines)
    frames = jnp.where(flip[..., None], frames[:, :, ::-1], frames) / 255.0
    mean = frames.mean(-1, keepdims=True)
    frames = jnp.where(jax.random.bernoulli(grey, shape=(len(frames), 1, 1, 1)), mean, frames)
    frames = (frames - jnp.asarray(MEAN)) / jnp.asarray(DEVIATION)
    dy, dx = jax.random.randint(shift, (2,), -4, 5)
    return jnp.roll(frames, (dy, dx), (1, 2)).astype(jnp.float32), jnp.roll(
        outlines, (dy, dx), (1, 2)
    )


def main() -> None:
    args = options_from_command_line()
    frames, outlines = frames_and_outlines(args.identities)
    model = Outliner()
    key = jax.random.key(SEED)
    params = model.init(key, jnp.zeros((1, CONFIG.height, CONFIG.width, 3)))["params"]
    optimizer = optax.adamw(optax.cosine_onecycle_schedule(args.steps, 2e-3), weight_decay=0.02)

    @jax.jit
    def step(params, state, key, frames, outlines):
        def loss(params):
            x, y = augmented_frames(key, frames, outlines)
            return optax.sigmoid_binary_cross_entropy(model.apply({"params": params}, x), y).mean()

        value, gradients = jax.value_and_grad(loss)(params)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, value

    state, rng = optimizer.init(params), np.random.default_rng(SEED)
    with Progress("pretraining", args.steps, "steps") as progress:
        for number in progress.over(range(args.steps)):
            rows = rng.integers(len(frames), size=args.batch)
            fold = jax.random.fold_in(key, number)
            params, state, value = step(params, state, fold, frames[rows], outlines[rows])
            if number % 100 == 99:
                print(f"step {number + 1}  loss {float(value):.4f}", flush=True)
    state_dict, _ = to_state(
        {"params": jax.device_get(params["dinov2"])}, dinov2_rules(CONFIG.embedding)
    )
    torch_files.write(args.out, state_dict)


if __name__ == "__main__":
    run(main)
