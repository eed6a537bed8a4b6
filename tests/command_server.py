"""Runs command lines in forks of one process that has imported everything: many runs, quickly, each
to be killed at will.

Reads a line of JSON for each request: `[words, log]` starts a command, answered by its process
number, and a number waits for that process, answered by its exit status (negative: the signal that
ended it).
"""

import json
import os
import sys

from mnist.runs import code
from mnist.train import PACKAGES as TRAINING
from studies import cli
from studies.frame.provenance import PACKAGES


def command(words, log):
    """Run the command line in this process, its output in a file, and end the process."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    status = 0
    try:
        sys.argv = ["jacobian-lab", *words]
        cli.main()
    except SystemExit as stop:
        status = stop.code or 0
    except BaseException:  # a defect, which the log shows
        import traceback

        traceback.print_exc()
        status = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve():
    """Answer requests until the input ends."""
    import torch

    torch.set_num_threads(1)
    for packages in (PACKAGES, TRAINING):
        code(packages)  # read once: the sources may be edited while the tests run
    for line in sys.stdin:
        request = json.loads(line)
        if isinstance(request, int):
            answer = os.waitstatus_to_exitcode(os.waitpid(request, 0)[1])
        else:
            answer = os.fork()
            if not answer:
                command(*request)
        print(answer, flush=True)


if __name__ == "__main__":
    serve()
