"""For whoever keeps notebooks under test, this course or another: lint, refresh, run, portable.

`python -m lessonkit.testing --help`. It needs nbclient, nbformat, nbval and pytest, which the extra
`test` installs.
"""

__all__: list[str] = []
