"""What all tests share: programs are compiled fast and once; figures are printed at the end."""

import os
import shutil
import subprocess
import sys
import tempfile

from commands import NO_EMITTERS, QUICK


def pytest_configure(config) -> None:
    if hasattr(config, "workerinput"):  # of pytest-xdist: it has inherited the environment
        return
    config.compiled = tempfile.mkdtemp(prefix="dinogrl_compiled_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = config.compiled
    flags = [os.environ.get("XLA_FLAGS", ""), QUICK, *[NO_EMITTERS] * understood(NO_EMITTERS)]
    os.environ["XLA_FLAGS"] = " ".join(flags).strip()


def understood(flag: str) -> bool:
    """Whether this version of XLA has a flag: one that it lacks ends the process."""
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = os.environ | {"XLA_FLAGS": flag}
    return not subprocess.run(command, env=environment, capture_output=True).returncode


def pytest_unconfigure(config) -> None:
    if hasattr(config, "compiled"):
        shutil.rmtree(config.compiled, ignore_errors=True)


def pytest_terminal_summary(terminalreporter) -> None:
    """What tests have measured (`record_property`), also those of another process."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            for name, value in getattr(report, "user_properties", ()):
                terminalreporter.write_line(f"{name}: {value}")
