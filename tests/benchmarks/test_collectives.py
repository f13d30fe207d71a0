"""What devices send each other is read from a compiler's text."""

import numpy as np
from collectives import Collective, carried, collectives, sizes

# Two pieces of one gather, a loop of three turns, and a sum of two arrays.
TEXT = """HloModule step

%sum (a: f32[], b: f32[]) -> f32[] {
  ROOT %add = f32[] add(%a, %b)
}

%piece (p: bf16[2,16]) -> bf16[16,16] {
  %gather.1 = bf16[16,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, dimensions={0}
}

%rest (p: bf16[2,16]) -> bf16[16,16] {
  %gather.2 = bf16[16,16]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=1, dimensions={0}
}

%turn (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %reduce.1 = f32[4]{0:T(128)S(1)} all-reduce(%x), channel_id=2, metadata={op_name="loss/while"}
}

%more (p: (s32[], f32[4])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
}

ENTRY %main (p: bf16[2,16]) -> f32[4] {
  %begin = bf16[16,16]{1,0} fusion(%p), kind=kCustom, calls=%piece
  %end = bf16[16,16]{1,0} fusion(%p), kind=kCustom, calls=%rest
  %loop = (s32[], f32[4]) while(%start), condition=%more, body=%turn
  %both = (f32[3]{0}, /*index=1*/f32[3,5]{1,0:T(8,128)}) all-reduce(%a, %b), to_apply=%sum
  %started = (f32[2,8]{1,0}, f32[16,8]{1,0}) all-gather-start(%p), channel_id=3
}
"""


def test_pieces_are_one_and_turns_are_counted():
    assert sorted(collectives(TEXT)) == [
        Collective("all-gather", ((16, 8),), (512,), 1),
        Collective("all-gather", ((16, 16),), (512,), 1),
        Collective("all-reduce", ((3,), (3, 5)), (12, 60), 1),
        Collective("all-reduce", ((4,),), (16,), 3, "loss/while"),
    ]


def test_activations_of_frames_are_none_of_what_is_sent():
    variables = {"kernel": np.zeros((3, 3, 64, 64)), "bias": np.zeros(2048)}
    variables["linear"] = np.zeros((768, 16))
    known = sizes(variables, axes={8, 16, 35, 256})
    assert carried((64, 3, 3, 64), known) == carried((8, 96, 16), known) == "parameters"
    assert carried((12, 64, 16), known) == "other"  # as many numbers, but of no 12 devices
    assert carried((64,), known) == carried((1, 2048), known) == "statistics"
    assert carried((16, 35, 256), known) == carried((35, 16, 16), known) == "embeddings"
    for shape in ((12, 64, 32, 64), (12, 256, 384), (24 * 64 * 32, 64), (24 * 64 * 32,)):
        assert carried(shape, known) == "other"
