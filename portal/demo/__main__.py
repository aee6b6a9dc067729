"""Entry point of `python -m portal.demo`."""

import sys

from portal.demo.cli import main

sys.exit(main())
