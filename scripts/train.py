"""Train a method and evaluate it: dinogrl_jax train --config synthetic

The same command continues a run that was stopped. Exit status: 0 done, 2 bad input, 75 stopped by
Ctrl-C or SIGTERM with everything saved.
"""

from dinogrl_jax.devices import compiling, hosts, memory
from dinogrl_jax.interface import command_line
from dinogrl_jax.interface.errors import run
from dinogrl_jax.retrieval.protocols import protocol_lines
from dinogrl_jax.retrieval.tables import DIRECTIONS, results_table
from dinogrl_jax.training.interruption import STOPPED
from dinogrl_jax.training.loop import train


def main() -> int:
    config, folder = command_line.config_and_workdir()
    memory.keep_freed()
    hosts.connect(config.hosts)
    compiling.keep_compiled()
    results = train(config, folder)
    if results is None:
        return STOPPED
    e, figures = config.evaluation, {d: results[d] for d in DIRECTIONS if d in results}
    print(results_table(results), *protocol_lines(e.protocol, e.camera_filter, figures), sep="\n")
    return 0


if __name__ == "__main__":
    run(main)
