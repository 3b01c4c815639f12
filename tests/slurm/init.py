"""init.py COMMAND...  -  run a command, and then do what process 1 ought to do for what it leaves.

An orphan that ended is a zombie until process 1 asks for its exit status. In containers that may
last seconds, or for ever, and SLURM waits for it before it calls a job ended. This process adopts
the orphans instead, says "ready" once the command has succeeded, and ends with the last of them.
"""

import contextlib
import ctypes
import os
import subprocess
import sys

PR_SET_CHILD_SUBREAPER = 36

ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
code = subprocess.call(sys.argv[1:], stdin=subprocess.DEVNULL, stdout=sys.stderr)
if code == 0:
    print("ready", flush=True)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
sys.exit(code)
