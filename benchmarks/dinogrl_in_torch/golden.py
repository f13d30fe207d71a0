"""The model with the seeded parameters of the published one, and how far it is from its values.

`tests/golden` holds what the published implementation made of them. Limits, and the reason for
each, are those of `tests/methods/dinogrl/fidelity.py`: the same for PyTorch as for JAX.
"""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # what the tests import looks for a card otherwise
TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(TESTS.parent), str(TESTS), str(TESTS / "methods" / "dinogrl")]

import fidelity  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from fidelity_table import Limit  # noqa: E402
from golden_runs import IN_FRONT_OF_BATCH_NORM, TERMS  # noqa: E402
from published import GOLDEN, fill, off, relative, sampled  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dinogrl_in_torch.losses import SCALE, batch_all_triplet, gait_terms, identity_loss  # noqa: E402
from dinogrl_in_torch.model import DinoGRL, Training, optimizer  # noqa: E402
from dinogrl_in_torch.pbmge import PBMGE  # noqa: E402
from dinogrl_in_torch.sizes import PUBLISHED  # noqa: E402

MANIFEST = "dinogrl_manifest.json"
ROUNDING = "float32 sums of 256 products in another order"
LIMITS = {
    "components": {  # as in tests/methods/dinogrl/test_components_golden.py
        "PBMGE in evaluation": Limit(2e-5, "of the largest", ROUNDING),
        "PBMGE in training": Limit(2e-4, "of the largest", "16 normalisations, 1e-5 each"),
        "PBMGE's statistics": Limit(1e-5, "of the largest", ROUNDING),
        "PBMGE's gradients": Limit(1e-3, "of the largest", "lifts' pass through 256² sums"),
        "losses": Limit(1e-6, "relative", "a mean of 10⁴ hinges in another order"),
        "losses' gradients": Limit(2e-5, "of the largest", ROUNDING),
    },
    **fidelity.LIMITS,
}


def figures(run: str, device: str, gathers: bool) -> dict[str, float]:
    """How far a run is from its golden file, by the names in LIMITS."""
    return RUNS[run](torch.device(device), gathers)


def lines(run: str, found: dict[str, float]) -> tuple[list[str], bool]:
    """A line for each figure, and whether all are within their limits."""
    limits = LIMITS[run]
    text = [
        f"{run}, {name}: {value:.1e} of {limits[name].value:.0e} {limits[name].unit}"
        f"{'' if value <= limits[name].value else '  WORSE'}"
        for name, value in found.items()
    ]
    return text, all(value <= limits[name].value for name, value in found.items())


def seeded(seed: int, gathers: bool, dtype: torch.dtype, device: torch.device) -> DinoGRL:
    """The model with the golden parameters; the mask branch drops nothing.

    Channels lie first, as they did for the published values: of channels last PyTorch's BatchNorm
    adds up number by number on a CPU. Its mean of 98,304 positions is off by 4e-6 then, and the
    gait stream's float32 descriptors by 1e-3 of their deviation.
    """
    with torch.device("meta"):
        model = DinoGRL(PUBLISHED, gathers)
    entries = json.loads((GOLDEN / MANIFEST).read_text())
    for name, file in model.files().items():
        state = {
            key: torch.from_numpy(np.asarray(fill.parameter(f"{name}:{key}", tuple(shape), seed)))
            for key, shape in entries[name]
        }
        file.load_state_dict(state, strict=True, assign=True)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(is_trained(name))
    model.gait.dinov2.Mask_Branch.dropout.p = 0.0
    for block in (model.gait.dinov2.gait_net.pre_part, model.gait.dinov2.gait_net.pre_rgb):
        block.register_forward_pre_hook(lambda _, maps: tuple(x.contiguous() for x in maps))
    return model.to(device, dtype)


def is_trained(name: str) -> bool:
    return not any(part in f".{name}" for part in (".dinov2.dinov2.dinov2.", ".gcn_", ".GAP."))


def frames(golden: np.lib.npyio.NpzFile, modality: str, like: DinoGRL) -> Tensor:
    """Tracklets of six frames, as the network takes them."""
    images = fill.frames(int(golden["frames"]), *PUBLISHED.frame, int(golden[f"{modality}_seed"]))
    parameter = next(like.parameters())
    made = torch.from_numpy(fill.normalised(images)).permute(0, 3, 1, 2).contiguous()
    return made.to(parameter.device, parameter.dtype)


def numpy(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()


def components(device: torch.device, gathers: bool) -> dict[str, float]:
    """PBMGE alone in both modes, and both losses with their gradients.

    In float64, so that the rounding is the golden values' alone: through sixteen visits PyTorch's
    float32 gradients differ by 4e-3 between one thread and two.
    """
    golden = np.load(GOLDEN / "components.npz")
    model = PBMGE(PUBLISHED)
    entries = json.loads((GOLDEN / MANIFEST).read_text())["best_model2.pth"]
    seed = int(golden["seed"])
    state = {k: fill.parameter(f"best_model2.pth:{k}", tuple(s), seed) for k, s in entries}
    model.load_state_dict({k: torch.from_numpy(np.asarray(x)) for k, x in state.items()})
    model.to(device, torch.float64)

    def given(name: str) -> Tensor:
        return torch.from_numpy(golden[name]).to(device, torch.float64).requires_grad_()

    inputs = [given(f"pbmge_{name}_in") for name in ("gait", "appearance")]
    found = dict.fromkeys(LIMITS["components"], 0.0)

    def compare(figure: str, x: Tensor, name: str) -> None:
        difference = np.abs(numpy(x) - golden[name]).max() / np.abs(golden[name]).max()
        found[figure] = max(found[figure], float(difference))

    for figure, mode in (("evaluation", "eval"), ("training", "train")):
        made = model.train(mode == "train")(*inputs)
        for name, x in zip(("gait", "appearance"), made, strict=True):
            compare(f"PBMGE in {figure}", x[..., 31:], f"pbmge_{name}_{mode}")
    sum((x * given("pbmge_cotangent").detach()).sum() for x in made).backward()
    for name, x in zip(("gait", "appearance"), inputs, strict=True):
        compare("PBMGE in training", x.grad, f"pbmge_{name}_grad")
    for name, x in model.named_buffers():
        if "running" in name:
            compare("PBMGE's statistics", x, f"pbmge_stat:{name}")
    for name, x in model.named_parameters():
        if not name.endswith(IN_FRONT_OF_BATCH_NORM):
            compare("PBMGE's gradients", x.grad, f"pbmge_grad:{name}")

    labels = torch.from_numpy(golden["triplet_labels"]).to(device)
    for name, loss in (
        ("triplet", batch_all_triplet),
        ("ce", lambda x, labels: identity_loss(SCALE * x, labels)),
    ):
        x = given(f"{name}_in")
        value = loss(x, labels)
        value.backward()
        found["losses"] = max(found["losses"], relative(value.detach(), golden[name]))
        compare("losses' gradients", x.grad, f"{name}_grad")
    return found


@torch.no_grad()
def evaluation(device: torch.device, gathers: bool) -> dict[str, float]:
    golden = np.load(GOLDEN / "dinogrl_eval.npz")
    model = seeded(int(golden["seed"]), gathers, torch.float32, device).eval()
    made, gait = {}, model.gait.dinov2

    def keep(name: str, module: nn.Module) -> None:
        module.register_forward_hook(lambda _, given, found: made.update({name: found}))

    keep("tokens", gait.dinov2)
    keep("maps", gait)
    keep("gait", gait.gait_net.post_backbone)
    keep("appearance", model.appearance.share_encoder)
    parts, maps = model.parts(frames(golden, "visible", model), None)
    inside = dict(made)
    infrared, _ = model.parts(None, frames(golden, "infrared", model))
    compared = {
        "DINOv2's last tokens": (inside["tokens"][0], "tokens_last"),
        "DINOv2's tapped tokens": (inside["tokens"][1], "tokens_mid4"),
        "denoising map": (maps.denoising, "denoising"),
        "appearance map": (maps.appearance, "appearance_map"),
        "gait pyramid": (inside["gait"], "hpp_gait"),
        "appearance pyramid": (inside["appearance"], "hpp_appearance"),
    }
    found = {k: off(numpy(x), golden[f"visible_{name}"]) for k, (x, name) in compared.items()}
    for modality, both in (("visible", parts), ("infrared", infrared)):
        found[f"{modality} descriptors"] = descriptors_off(both, golden, f"{modality}_")
    mask, foreground = golden["visible_mask_probability"], golden["visible_foreground"]
    own, terms = numpy(maps.foreground), gait_terms(maps)
    return found | {
        "mask probability": float(np.abs(numpy(maps.mask)[:, 0].reshape(mask.shape) - mask).max()),
        "foreground selection": int(((own != 0) != (foreground != 0)).sum()),
        "foreground probability": float(np.abs(own - foreground).max()),
        "gait losses": max(relative(terms[name], golden[f"loss_{name}"]) for name in terms),
    }


def descriptors_off(parts: dict, golden: np.lib.npyio.NpzFile, prefix: str = "") -> float:
    return max(off(numpy(x), golden[f"{prefix}{name}"]) for name, x in parts.items())


def training_float64(device: torch.device, gathers: bool) -> dict[str, float]:
    golden = np.load(GOLDEN / "dinogrl_train_float64.npz")
    step = Step(golden, torch.float64, device, gathers)
    norms, samples, zero, updates = [], [], [], []
    for i, name in enumerate(golden["grad_names"]):
        parameter = step.named[str(name)]
        gradient = numpy(parameter.grad)
        difference = np.abs(sampled(gradient, 4) - golden["grad_samples"][i]).max()
        after = sampled(numpy(parameter), 4)
        updates.append(np.abs(after - golden["update_samples"][i]).max())
        if str(name).endswith(IN_FRONT_OF_BATCH_NORM):
            zero += [np.linalg.norm(gradient), difference]
            continue
        norms.append(relative(np.linalg.norm(gradient), golden["grad_norms"][i]))
        samples.append(difference / np.abs(golden["grad_samples"][i]).max())
    return step.common_figures() | {
        "gradient norms": float(max(norms)),
        "gradient samples": float(max(samples)),
        "gradients that are zero": float(max(zero)),
        "samples after an Adam step": float(max(updates)),
    }


def training_float32(device: torch.device, gathers: bool) -> dict[str, float]:
    golden = np.load(GOLDEN / "dinogrl_train.npz")
    step = Step(golden, torch.float32, device, gathers)
    norms = [
        (relative(np.linalg.norm(numpy(step.named[str(name)].grad)), norm), norm)
        for name, norm in zip(golden["grad_names"], golden["grad_norms"], strict=True)
        if not str(name).endswith(IN_FRONT_OF_BATCH_NORM)
    ]
    return step.common_figures() | {
        "gradient norms, median": float(np.median([error for error, _ in norms])),
        "gradient norms": float(max(error for error, norm in norms if norm > 1e-4)),
    }


RUNS: dict[str, Callable[[torch.device, bool], dict[str, float]]] = {
    "components": components,
    "eval": evaluation,
    "train_float32": training_float32,
    "train_float64": training_float64,
}


class Step:
    """One training step on a golden batch."""

    def __init__(
        self,
        golden: np.lib.npyio.NpzFile,
        dtype: torch.dtype,
        device: torch.device,
        gathers: bool,
    ) -> None:
        self.golden = golden
        model = seeded(int(golden["seed"]), gathers, dtype, device).train()
        self.named = {
            f"{file}:{key}": x
            for file, module in model.files().items()
            for key, x in (*module.named_parameters(), *module.named_buffers())
        }
        adam = optimizer(model)
        group = adam.param_groups[0]
        assert (group["lr"], group["weight_decay"]) == tuple(
            float(golden[name]) for name in ("learning_rate", "weight_decay")
        )
        pair = [frames(golden, modality, model) for modality in ("visible", "infrared")]
        labels = torch.from_numpy(golden["labels"]).to(device)
        kept = torch.ones(len(labels), 2, dtype=torch.bool, device=device)
        kept[tuple(torch.from_numpy(golden["zeroed_maps"].T).to(device))] = False
        total, self.terms, self.parts = Training(model, dtype)(*pair, labels, kept)
        total.backward()
        adam.step()
        trained = {name for name, x in self.named.items() if x.grad is not None}
        assert trained == set(golden["grad_names"])

    def common_figures(self) -> dict[str, float]:
        golden = self.golden
        statistics = [
            relative(np.linalg.norm(numpy(self.named[str(name)])), norm)
            for name, norm in zip(golden["buffer_names"], golden["buffer_norms"], strict=True)
        ]
        return {
            "losses and terms": max(
                relative(self.terms[k].detach(), golden[v]) for k, v in TERMS.items()
            ),
            "descriptors": descriptors_off(self.parts, golden),
            "running statistics": float(max(statistics)),
        }
