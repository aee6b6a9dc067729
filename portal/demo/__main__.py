"""Entry point of `python -m portal.demo`."""

import sys

from portal.demo.cli import main

try:
    sys.exit(main())
except KeyboardInterrupt:  # before anything was started
    sys.exit(130)
