"""Fixtures shared by several test files."""

from __future__ import annotations

import os
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:
    # processes side by side, and the kernels of their notebooks, that each use all cores wait for
    # one another; torch has not been imported yet
    os.environ.setdefault("OMP_NUM_THREADS", "1")


# --- tiny models (from tests/model_fixtures.py) ------------------------------------------------
@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """WordPiece tokenizer of a few dozen words."""
    from model_fixtures import wordpiece_tokenizer

    return wordpiece_tokenizer()


@pytest.fixture
def tiny_bert() -> Any:
    """Random BERT classifier, made anew for every test: tests may change it."""
    from model_fixtures import tiny_model

    return tiny_model("bert")
