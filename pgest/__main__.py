"""`python -m pgest` is the command `pgest`."""

import sys

from pgest.cli import main

sys.exit(main())
