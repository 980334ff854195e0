"""Fixtures shared by several test files."""

from __future__ import annotations

from typing import Any

import pytest


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
