"""``python -m greenroom`` is the command ``greenroom``."""

import sys

from greenroom.actors.cli import main

sys.exit(main())
