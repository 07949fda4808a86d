"""Copy one figure of each lesson from its notebook to `docs/pictures`, where the README shows it.

python -m tools.pictures
"""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "docs" / "pictures"
CELLS = {
    "00_start_here": "map",
    "01_precision_formats": "bits",
    "02_four_bit_formats": "weights-and-levels",
    "03_hf_conversion": "layouts",
}
"""For each lesson, the id of the cell whose figure stands for it."""


def figure_of(lesson: str) -> bytes:
    """The PNG in the outputs of a lesson's chosen cell.

    Raises SystemExit where the cell or its figure is not there.
    """
    book = nbformat.read(ROOT / "notebooks" / f"{lesson}.ipynb", 4)
    for cell in book.cells:
        if cell.id == CELLS[lesson]:
            for output in cell.outputs:
                if "image/png" in output.get("data", {}):
                    return base64.b64decode(output.data["image/png"])
    raise SystemExit(f"{lesson}: cell {CELLS[lesson]} shows no figure; run `make notebooks`")


def picture_path(lesson: str) -> Path:
    """Where a lesson's picture lies: `docs/pictures/00.png` and so on."""
    return PICTURES / f"{lesson[:2]}.png"


def main() -> int:
    """Write every lesson's picture into `docs/pictures`."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    for lesson in CELLS:
        picture_path(lesson).write_bytes(figure_of(lesson))
    return 0


if __name__ == "__main__":
    sys.exit(main())
