"""What was freed stays with the process where scripts ask for it, and goes back when they say."""

import platform
import subprocess
import sys

import jax
import pytest

from dinogrl_jax.devices import memory
from dinogrl_jax.interface.errors import InputError

GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="keep_freed asks glibc alone")
# The least page faults of several runs of a computation with an intermediate of 256 MiB (another
# thread may free it late), and what is resident in MiB, before and after memory is given back.
PROGRAM = """
import resource
import jax
import jax.numpy as jnp
from dinogrl_jax.devices import memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() >> 20

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if {keep}:
    memory.keep_freed()
x = jnp.ones(2**27)
run = jax.jit(lambda x: jax.lax.optimization_barrier(x + 1)[::2].max())
found = []
for _ in range(6):
    before = faults()
    run(x).block_until_ready()
    found.append(faults() - before)
kept = resident()
memory.give_back()
print(min(found), kept, resident())
"""


@GLIBC
def test_freed_memory_serves_again_until_it_is_given_back():
    def found(keep: bool) -> list[int]:
        run = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        return [int(word) for word in done.stdout.split()]

    faults, resident, after = found(keep=True)
    assert faults < found(keep=False)[0] / 10
    assert resident - after > 200


LIMITED = """
import resource
from dinogrl_jax.devices import memory

before = memory.available()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, -1))
print(before, memory.available())
"""


def test_a_limit_of_the_process_counts():
    """Kind H: `ulimit -v`, beside what the machine has."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    before, after = map(int, done.stdout.split())
    assert before > 2**29 and 2**27 < after <= 2**28


@pytest.mark.parametrize(
    "error",
    [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory of 9 GiB")],
)
def test_a_shortage_names_what_helps(error):
    with pytest.raises(InputError, match="memory is too small .*: lower the batch"):
        with memory.shortage_named("lower the batch"):
            raise error


def test_other_errors_of_jax_stay_what_they_are():
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        with memory.shortage_named("lower the batch"):
            raise jax.errors.JaxRuntimeError("INTERNAL: a bug")
