"""The kernels of a GPU's program are read from its compiler's text."""

from hlo import Kernel, kernels

# A product that ends with a sum, a fusion that updates a row in place, one that reads a row, a
# fusion that is given an array twice, a loop of three turns.
TEXT = """HloModule step

%update (p0: f32[8,16], p1: f32[16], p2: s32[]) -> f32[8,16] {
  %p0 = f32[8,16]{1,0} parameter(0)
  %p1 = f32[16]{0} parameter(1)
  %row = f32[1,16]{1,0} bitcast(%p1)
  %p2 = s32[] parameter(2)
  ROOT %updated = f32[8,16]{1,0} dynamic-update-slice(%p0, %row, %p2, %p2)
}

%first (p0: f32[8,16]) -> f32[16] {
  %p0 = f32[8,16]{1,0} parameter(0)
  %rows = f32[2,4,16]{2,1,0} bitcast(%p0)
  %row = f32[1,1,16]{2,1,0} slice(%rows), slice={[0:1], [0:1], [0:16]}
  ROOT %flat = f32[16]{0} bitcast(%row)
}

%twice (p0: f32[16], p1: f32[16]) -> (f32[16], bf16[16]) {
  %p0 = f32[16]{0} parameter(0)
  %p1 = f32[16]{0} parameter(1)
  %sum = f32[16]{0} add(%p0, %p1)
  %half = bf16[16]{0} convert(%sum)
  ROOT %both = (f32[16]{0}, bf16[16]{0}) tuple(%sum, %half)
}

%turn (p: (s32[], f32[16])) -> (s32[], f32[16]) {
  %p = (s32[], f32[16]{0}) parameter(0)
  %x = f32[16]{0} get-tuple-element(%p), index=1
  ROOT %next = f32[16]{0} copy(%x)
}

ENTRY %main (a: bf16[8,32], b: bf16[32,16], c: f32[8,16]) -> f32[8,16] {
  %a = bf16[8,32]{1,0} parameter(0)
  %b = bf16[32,16]{1,0} parameter(1)
  %c = f32[8,16]{1,0} parameter(2)
  %gemm = (f32[8,16]{1,0}, s8[4096]{0}) custom-call(%a, %b, /*index=2*/%c), \
custom_call_target="__cublas$lt$matmul", backend_config={"lhs_contracting_dimensions":["1"]}
  %product = f32[8,16]{1,0} get-tuple-element(%gemm), index=0
  %row = f32[16]{0} fusion(%product), kind=kLoop, calls=%first
  %pair = (f32[16]{0}, bf16[16]{0}) fusion(%row, %row), kind=kLoop, calls=%twice
  %sum = f32[16]{0} get-tuple-element(%pair), index=0
  %zero = s32[] constant(0)
  %start = (s32[], f32[16]{0}) tuple(%zero, %sum)
  %loop = (s32[], f32[16]{0}) while(%start), body=%turn, \
backend_config={"known_trip_count":{"n":"3"}}
  ROOT %end = f32[8,16]{1,0} fusion(%product, %sum, %zero), kind=kLoop, calls=%update
}
""".replace("\\\n", "")


def test_bytes_operations_and_turns_by_hand():
    assert list(kernels(TEXT)) == [
        Kernel("products", 8 * 32 * 2 + 32 * 16 * 2 + 2 * 8 * 16 * 4, 2 * 8 * 16 * 32, 1),
        Kernel("elementwise", 16 * 4 + 16 * 4, 0, 1),
        Kernel("elementwise", 16 * 4 + 16 * 4 + 16 * 2, 0, 1),
        Kernel("copies", 2 * 16 * 4, 0, 3),
        Kernel("elementwise", 16 * 4 + 4 + 16 * 4, 0, 1),
    ]
