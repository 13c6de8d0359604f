"""torch.distributed.run that keeps the exit status 75 of an interrupted training; tools/dist_train.sh calls it.

torch's launcher exits with status 1 for any failure. It forwards SIGTERM to its processes; this forwards SIGUSR1 too.
"""
import os
import signal
import sys
import tempfile

from torch.distributed import run


def main(argv=None) -> int:
    args = run.parse_args(argv)
    os.environ.setdefault('TORCH_ELASTIC_SHUTDOWN_TIMEOUT', '120')  # seconds to save in; torch's default is 30
    signal.signal(signal.SIGUSR1, lambda number, frame: os.kill(os.getpid(), signal.SIGTERM))
    with tempfile.NamedTemporaryFile('r') as status:
        os.environ['MIMHD_MM_STATUS_FILE'] = status.name  # mimhd_mm.engine.hooks.InterruptHook writes into it
        try:
            run.run(args)
        except Exception:  # of the launcher, when it was signalled or a process failed
            written = status.read().strip()
            if not written:
                raise
            return int(written)
    return 0


if __name__ == '__main__':
    sys.exit(main())
