"""`python -m underpaint_backend` is the command `underpaint`."""

import sys

from .cli import main

sys.exit(main())
