"""`python -m lessonkit.cli`, where the command `lessonkit` is not on the path."""

import sys

from lessonkit.cli import main

sys.exit(main())
