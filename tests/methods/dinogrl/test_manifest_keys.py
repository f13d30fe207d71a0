"""All keys of DinoGRL's files, through a file and through rules in both directions."""

import json
import re
from types import SimpleNamespace

import numpy as np
from commands import ROOT

from dinogrl_jax.weights.conversion import report_lines, to_state, to_variables
from dinogrl_jax.weights.files import torch_files
from dinogrl_jax.weights.published import counter
from dinogrl_jax.weights.rules import CONV, CONV1D, IDENTITY, LINEAR, Dropped, Rule

MANIFEST = ROOT / "tests/golden/dinogrl_manifest.json"


def random(shape):
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


def renamed(manifest):
    """One rule for all keys of the manifest that differ in the number of a block only."""
    rules = {}
    for key, shape in manifest.items():
        if not key.endswith("num_batches_tracked"):
            template = re.sub(r"blocks\.\d+", "blocks.{i}", key)
            template = re.sub(r"resnet_conv\.\d+\.\d+\.", "resnet_conv.{s}.{b}.", template)
            layout = {2: LINEAR, 3: CONV1D, 4: CONV}.get(len(shape), IDENTITY)
            path = re.sub(r"[:.]", "/", template)
            rules[template] = Rule(template, f"params/{path}", layout)
    beside = ("{n:.+}.num_batches_tracked", "{n:.+}.running_mean")
    return [*rules.values(), Dropped(beside[0], (), counter, beside=beside[1])]


def shape_here(rule, shape):
    return rule.layout.from_torch(np.broadcast_to(0.0, shape)).shape


def shapes_of(manifest, rules):
    tree = {}
    for key, shape in manifest.items():
        for rule in (rule for rule in rules[:-1] if rule.match_key(key) is not None):
            template = rule.path.format(**rule.match_key(key))
            *parents, name = template.split("/")
            node = tree
            for parent in parents:
                node = node.setdefault(parent, {})
            node[name] = SimpleNamespace(shape=shape_here(rule, shape), dtype=np.dtype(np.float32))
    return tree


def test_all_keys_of_the_published_files(tmp_path):
    files = json.loads(MANIFEST.read_text())
    small = {
        f"{file}:{key}": tuple(min(size, 3) for size in shape)
        for file, entries in files.items()
        for key, shape in entries
    }
    source = {
        key: counter(()) if key.endswith("tracked") else random(shape)
        for key, shape in small.items()
    }
    torch_files.write(tmp_path / "all.pth", source)
    rules = renamed(small)
    read = torch_files.read(tmp_path / "all.pth")
    variables, report = to_variables(read, rules, shapes_of(small, rules), source_name="all.pth")
    back, _ = to_state(variables, rules)
    assert back.keys() == source.keys() and len(back) == 963
    assert all(np.array_equal(back[key], source[key]) for key in source)
    lines = report_lines(report)
    assert len(lines) == len(rules) + 1 < 400
    assert sum(int(line.split()[0]) for line in lines[1:]) == 963
