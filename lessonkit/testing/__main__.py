"""`python -m lessonkit.testing`: notebooks under test."""

import sys

from lessonkit.testing.commands import main

sys.exit(main())
