"""The project's own rules: style, types, and a light import."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = (
    "torch",
    "transformers",
    "cvxpy",
    "numba",
    "scipy",
    "matplotlib",
    "clarabel",
    "ecos",
    "scs",
)


def run(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "command",
    [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)],
    ids=lambda c: " ".join(c),
)
def test_checkers_are_content(command):
    result = run(sys.executable, "-m", *command)
    assert result.returncode == 0, result.stdout + result.stderr


def test_import_is_light():
    code = f"import sys, flowopt; print([m for m in {HEAVY!r} if m in sys.modules])"
    result = run(sys.executable, "-c", code)
    assert result.stdout.strip() == "[]", result.stdout + result.stderr


def test_every_export_exists():
    import flowopt

    for name in flowopt.__all__:
        assert getattr(flowopt, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = flowopt.no_such_name


def test_notebooks_agree_with_their_scripts():
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        script = notebook.with_suffix(".py")
        assert script.exists(), f"{notebook.name} has no paired script"
        import jupytext

        cells = [[c.cell_type, c.source] for c in jupytext.read(notebook).cells]
        assert cells == [[c.cell_type, c.source] for c in jupytext.read(script).cells]
