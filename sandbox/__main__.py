"""Entry point of `python -m sandbox PART ...`."""

import sys

from sandbox.cli import main

sys.exit(main())
