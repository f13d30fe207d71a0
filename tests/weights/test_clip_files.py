"""CLIP's files in the dialects of three owners: one model, bit for bit, or one line that says why.

The names are those of the published files (tests/golden/clip_manifest.json), sizes are small.
"""

import json
import re
from pathlib import Path

import fill
import jax
import numpy as np
import pytest
import small_states
import tiny_clip as tiny

from dinogrl_jax.interface.errors import InputError
from dinogrl_jax.methods.contract import Facts
from dinogrl_jax.training import checkpoint
from dinogrl_jax.training.start import starting_variables, starting_variables_of_file
from dinogrl_jax.weights import spellings
from dinogrl_jax.weights.clip_files import clip_sizes, fitted, resampled_positions
from dinogrl_jax.weights.conversion import report_lines, to_variables
from dinogrl_jax.weights.published import CLIP

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit
GOLDEN = Path(__file__).parents[1] / "golden"
MANIFEST = json.loads((GOLDEN / "clip_manifest.json").read_text())
FACTS = Facts(identities=3)


def tensors(state, dtype=None):
    state = {key: torch.from_numpy(np.array(value)) for key, value in state.items()}
    return {k: x.to(dtype) if dtype and x.is_floating_point() else x for k, x in state.items()}


def script(state, path):
    """An archive of TorchScript whose modules have these tensors, as OpenAI published CLIP."""
    top = torch.nn.Module()
    for key, value in state.items():
        *around, name = key.split(".")
        module = top
        for part in around:
            if part not in dict(module.named_children()):
                module.add_module(part, torch.nn.Module())
            module = getattr(module, part)
        module.register_buffer(name, value)
    torch.jit.save(torch.jit.script(top), str(path))


@pytest.fixture
def file_in(tmp_path):
    """A function that writes a CLIP by an owner's names: OpenAI's, or those of one beside them."""
    save_file = pytest.importorskip("safetensors.torch").save_file

    def path_of(owner, state=None, dtype=None):
        state = small_states.clip() if state is None else state
        path = tmp_path / f"{owner}.pt"
        if owner == "openai":
            script(tensors(state, dtype), path)
        elif owner == "hugging_face":
            theirs = tensors(small_states.clip_of_hugging_face(state), dtype)
            save_file({key: x.contiguous() for key, x in theirs.items()}, path)
        elif owner == "open_clip":
            save_file(tensors(small_states.clip_of_open_clip(state), dtype), path)
        else:
            inside = small_states.behind("module.", small_states.clip_of_open_clip(state))
            torch.save({"epoch": 3, "name": "run", "state_dict": tensors(inside, dtype)}, path)
        return str(path)

    return path_of


@pytest.fixture
def config():
    return tiny.get_config()


def started(config):
    model = tiny.Model(config, FACTS)
    return starting_variables(tiny, model, FACTS, ["a", "b", "c"], config)


def assert_same(tree, other):
    jax.tree.map(np.testing.assert_array_equal, tree, other)


@pytest.mark.parametrize(
    "name, dialect",
    [("ViT-B-16.pt", dict), ("model.safetensors", small_states.clip_of_hugging_face)],
)
def test_the_small_files_have_the_names_of_the_published_ones(name, dialect):
    found, listed = dialect(small_states.clip(depth=12)), dict(MANIFEST[name])
    assert found.keys() == listed.keys()
    assert {key: len(shape) for key, shape in listed.items()} == {
        key: value.ndim for key, value in found.items()
    }


OWNERS = ("openai", "hugging_face", "open_clip", "checkpoint of open_clip")


@pytest.mark.parametrize("dtype", [None, torch.float16])
@pytest.mark.parametrize("owner", OWNERS)
def test_all_dialects_are_one_model_bit_for_bit(owner, dtype, file_in, config):
    """The numbers are what float16 has, so that the half-precision files lose none."""
    state = small_states.clip()
    found, sizes, report = starting_variables_of_file(
        tiny, "clip", file_in(owner, dtype=dtype), config
    )
    params = found["params"]
    assert all(x.dtype == np.float32 for x in jax.tree.leaves(found)) and not report.beside
    assert sizes.model == config.model
    expected = {
        "prefix": state["token_embedding.weight"][[7, 3]][None],
        "suffix": state["token_embedding.weight"][[2, 8, 0]][None],  # 0 behind the end
    }
    for name, rows in expected.items():
        np.testing.assert_array_equal(params[name], rows)
    kernel = params["image"]["block1"]["attn"]["qkv"]["kernel"]
    in_proj = state["visual.transformer.resblocks.1.attn.in_proj_weight"]
    np.testing.assert_array_equal(kernel, in_proj.T)
    np.testing.assert_array_equal(params["text"]["projection"], state["text_projection"])
    positions = resampled_positions(state["visual.positional_embedding"], 4, 2)
    np.testing.assert_array_equal(params["image"]["positional_embedding"], positions)
    rules = tiny.starting_weights(config)["clip"].rules
    fit = fitted(state, (4, 2), tiny.CLIP_SENTENCE, tiny.LEARNED)
    whole, _ = to_variables(fit, rules, found, source_name="by hand")
    assert_same(found, whole)


def test_the_model_starts_from_what_is_in_the_file(config, file_in):
    config.pretrained.clip = file_in("hugging_face")
    variables, (line,) = started(config)
    assert line.startswith(f"CLIP: weights of {config.pretrained.clip}; model.clip.activation is")
    params, state = variables["params"], small_states.clip()
    token = state["token_embedding.weight"][3]
    np.testing.assert_array_equal(params["prompts"]["prefix"][0, 1], token)
    np.testing.assert_array_equal(params["image"]["norm"]["bias"], state["visual.ln_post.bias"])
    assert params["prompts"]["learned"].shape == (3, 2, 6)


def test_a_converted_folder_is_as_good_as_its_file(config, file_in, tmp_path):
    path = file_in("openai")
    made, found, report = starting_variables_of_file(tiny, "clip", path, config)
    assert report.remark == "" and report_lines(report)[0].startswith(f"{path}: ")
    (tmp_path / "made").mkdir()
    metadata = checkpoint.Metadata(
        config=found, identities=[], cameras=[], step=0, figures=None, best=None
    )
    checkpoint.write_checkpoint(tmp_path / "made", made, metadata)
    config.pretrained.clip = path
    of_file, _ = started(config)
    config.pretrained.clip = str(tmp_path / "made")
    of_folder, _ = started(config)
    assert_same(of_folder, of_file)


def test_an_image_tower_alone_takes_its_part(config, file_in):
    config.model.has_text, config.pretrained.clip = False, file_in("openai")
    variables, _ = started(config)
    assert variables["params"].keys() == {"image"}


@pytest.mark.parametrize("owner, said", [("openai", False), ("open_clip", True)])
def test_where_the_file_is_not_openais_the_activation_is_named(owner, said, config, file_in):
    config.model.clip.activation = "gelu"
    *_, report = starting_variables_of_file(tiny, "clip", file_in(owner), config)
    assert (report_lines(report)[-1] == report.remark) == said
    assert ("model.clip.activation is gelu, which the file cannot tell" in report.remark) == said


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patch": 4}, "configured patch 2: set --config.model.clip.patch=4"),
        (
            {"width": 64, "depth": 3},
            "configured depth 2, heads 2, text.depth 2, width 8: set --config.model.clip.depth=3 "
            "--config.model.clip.heads=1 --config.model.clip.text.depth=3 "
            "--config.model.clip.width=64",
        ),
    ],
)
def test_weights_of_another_size_are_refused_in_one_line(changes, reason, config, file_in):
    path = config.pretrained.clip = file_in("openai", small_states.clip(**changes))
    with pytest.raises(InputError) as caught:
        started(config)
    assert str(caught.value) == f"{path}: is another CLIP than the {reason}"
    _, found, _ = starting_variables_of_file(tiny, "clip", path, config)  # convert.py adapts
    assert all(found.model.clip[key] == value for key, value in changes.items())


def without(*names):
    return {key: x for key, x in small_states.clip().items() if key not in names}


def changed(**changes):
    return {**small_states.clip(), **{k.replace("__", "."): v for k, v in changes.items()}}


ONES = np.ones(3, np.float32)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (without("visual.proj"), r"holds no vision transformer of CLIP \(visual.conv1, visual.pro"),
        (without("positional_embedding"), "holds no text tower of CLIP"),
        (without("token_embedding.weight"), "has no tokens .* the sentence needs token 8"),
        (small_states.clip(tokens=8), r"tokens of shape \(8, 6\) .* the sentence needs token 8"),
        (without("ln_final.bias"), "cannot be converted: ln_final.bias: is missing"),
        (changed(visual__positional_embedding=np.ones((9, 8), "f4")), "has shape .9, 8., a class"),
        (changed(visual__positional_embedding=np.ones((10, 8), int)), "is of type int64, not of"),
        (small_states.clip(width=9), "model.clip.heads = 2: it has to divide model.clip.width"),
        (small_states.clip(patch=5), "model.clip.patch = 5: it has to be no larger than data."),
        (
            changed(visual__conv1__weight=np.ones((8, 3, 0, 0), "f4")),
            "model.clip.patch = 0: it has",
        ),
        (
            changed(visual__conv1__weight=np.ones((0, 3, 2, 2), "f4")),
            "model.clip.width = 0: it has",
        ),
        (changed(visual__attnpool__x=ONES), "CLIP with a ResNet; visual.attnpool.x: no rule takes"),
        (
            {"visual.attnpool.positional_embedding": ONES, "visual.conv1.weight": ONES},
            "holds no vision transformer of CLIP .*; it holds CLIP with a ResNet",
        ),
        ({"vision_model.encoder.layers.0.x": ONES}, "a vision model of Hugging Face .CLIP, SigLIP"),
        ({"blocks.0.ls1.gamma": ONES}, "holds no vision transformer of CLIP .*; it holds DINOv2"),
    ],
)
def test_what_is_not_the_model_is_refused_in_one_line(state, reason, config, tmp_path):
    path = tmp_path / "clip.pth"
    torch.save(tensors(state), path)
    with pytest.raises(InputError, match=f"^{re.escape(str(path))}: .*{reason}") as caught:
        starting_variables_of_file(tiny, "clip", str(path), config)
    assert "\n" not in str(caught.value)


def test_the_published_file_has_the_published_sizes():
    shapes = {key: np.broadcast_to(np.float16(0), x) for key, x in MANIFEST["ViT-B-16.pt"]}
    assert clip_sizes(shapes) == {
        "patch": 16,
        "width": 768,
        "depth": 12,
        "heads": 12,
        "embedding": 512,
        "text": {"width": 512, "depth": 12, "heads": 8, "positions": 77},
    }
    for key in shapes:
        assert sum(rule.match_key(key) is not None for rule in CLIP) == 1, key


def test_hugging_faces_published_names_are_openais():
    listed = {name: dict(entries) for name, entries in MANIFEST.items()}
    theirs, published = listed["model.safetensors"], listed["ViT-B-16.pt"]
    names, beside = spellings.published_names(theirs, CLIP)
    numbers = {"input_resolution", "context_length", "vocab_size"}
    ids = {f"{tower}_model.embeddings.position_ids" for tower in ("vision", "text")}
    assert names.keys() - ids == published.keys() - numbers and not beside
    for key in names.keys() - ids:
        rows = sum(theirs[name][0] for name in names[key]) if published[key] else None
        shape = [rows, *theirs[names[key][0]][1:]] if published[key] else []
        assert shape == published[key] or shape[::-1] == published[key], key


def test_positions_are_resampled_as_pytorch_does():
    golden = np.load(GOLDEN / "clip_positions.npz")
    name, shape = "ViT-B-16.pt:visual.positional_embedding", (197, 768)
    whole = resampled_positions(fill.parameter(name, shape, int(golden["seed"])), 18, 9).ravel()
    expected = golden["positional_embedding_resized"]
    samples = whole[np.linspace(0, whole.size - 1, expected.size).astype(np.int64)]
    # Float32: two weighted means of two numbers of about 1.
    np.testing.assert_allclose(samples, expected, atol=1e-6)
    small = small_states.clip()["visual.positional_embedding"]
    assert resampled_positions(small, 3, 3) is small
