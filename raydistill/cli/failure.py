"""How a command ends on what the user can mend: one line a fault on stderr, exit code 2."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from raydistill.cli.lines import told
from raydistill.errors import RaydistillError, RayLostError


def fail(error: RaydistillError) -> NoReturn:
    for fault in error.faults:
        print(told(f"error: {fault}", sys.stderr), file=sys.stderr)
    if isinstance(error, RayLostError):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(2)  # in the usual way Ray would wait for what has gone
    sys.exit(2)
