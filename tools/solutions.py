"""The solutions notebooks, written from the reference solutions in `lessonkit.course.exercises`.

A solution stands once, in code, where a test holds it against the exercise's cases; its notebook
is made from it. Each exercise becomes its question and one cell: what the solution imports, the
constants and helpers of its module that it uses, the solution itself, and the attempt.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
ATTEMPT = "from lessonkit.course import exercises"


def solutions_notebook(lesson: str, title: str, setup: str) -> NotebookNode:
    """The notebook with the solutions of a lesson such as "01_precision_formats".

    `title` is the lesson's, `setup` the source of the set-up cell.
    """
    module = importlib.import_module(f"lessonkit.course.exercises.lesson_{lesson[:2]}")
    told = (
        f"# {title}: solutions\n\nThe exercises of lesson {lesson[:2]}, solved. Try them yourself "
        f"first: `notebooks/{lesson}.ipynb`."
    )
    notebook = nbformat.v4.new_notebook()
    notebook.cells = [nbformat.v4.new_markdown_cell(told, id="title")]
    notebook.cells.append(
        nbformat.v4.new_code_cell(setup, id="setup", metadata={"tags": ["setup"]})
    )
    written = {ATTEMPT}
    for number, exercise in enumerate(module.EXERCISES, start=1):
        question = f"**{number}.** {exercise.prompt}"
        notebook.cells.append(nbformat.v4.new_markdown_cell(question, id=f"question-{number}"))
        parts = needed_source(module, exercise.reference.__name__)
        imports = [part for part in parts if part.startswith(("import", "from"))]
        imports += [ATTEMPT] if number == 1 else []
        code = [part for part in parts if part not in imports]
        new = [[p for p in group if p not in written or p == ATTEMPT] for group in (imports, code)]
        written.update(parts)
        answer = exercise.name if exercise.asks_for_a_function else f"{exercise.name}()"
        call = f'exercises.attempt("{exercise.name}", {answer})'
        constants = [part for part in new[1] if not part.startswith("def ")]
        functions = [part for part in new[1] if part.startswith("def ")]
        blocks = ["\n".join(new[0]), "\n".join(constants), *functions, call]
        source = styled("\n\n\n".join(filter(None, blocks)))
        notebook.cells.append(nbformat.v4.new_code_cell(source, id=f"solution-{number}"))
    return notebook


def styled(source: str) -> str:
    """A cell in the style of all code here: imports sorted, laid out by ruff."""
    for command in (["check", "--quiet", "--fix", "--select", "I", "-"], ["format", "-"]):
        source = subprocess.run(
            [sys.executable, "-m", "ruff", *command],
            input=source, capture_output=True, text=True, check=True, cwd=ROOT,
        ).stdout  # fmt: skip
    return source.rstrip("\n")


def needed_source(module: ModuleType, name: str) -> list[str]:
    """The parts of a module's source that a function in it needs, itself last.

    Imports (one name each), module-level assignments and functions, in the module's order.
    """
    source = inspect.getsource(module)
    bound: dict[str, tuple[int, ast.stmt, str]] = {}
    for position, node in enumerate(ast.parse(source).body):
        for bound_name, text in _bindings(node, source):
            bound[bound_name] = (position, node, text)
    wanted, todo = {name}, [name]
    while todo:
        _, node, _ = bound[todo.pop()]
        used = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        new = (used & set(bound)) - wanted
        wanted |= new
        todo += new
    return [bound[n][2] for n in sorted(wanted, key=lambda n: (bound[n][0], n))]


def _bindings(node: ast.stmt, source: str) -> list[tuple[str, str]]:
    """The names that a top-level statement binds, each with the text that binds it."""
    if isinstance(node, ast.ImportFrom) and node.module != "__future__":
        return [(a.asname or a.name, f"from {node.module} import {a.name}") for a in node.names]
    if isinstance(node, ast.Import):
        return [
            (a.asname or a.name, f"import {a.name}" + (f" as {a.asname}" if a.asname else ""))
            for a in node.names
        ]
    text = ast.get_source_segment(source, node) or ""
    if isinstance(node, ast.FunctionDef):
        return [(node.name, text)]
    if isinstance(node, ast.Assign):
        return [(t.id, text) for t in node.targets if isinstance(t, ast.Name)]
    return []
