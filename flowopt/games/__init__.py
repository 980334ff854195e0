"""Cooperative games of flows and models, and their Shapley values (method.md section 8).

A game is players and a value for every coalition of them. Games over one network must be kept
apart: `LayerGame` is additive, whatever flow it is made from; `RestrictedGame` is not.
"""

from flowopt.games.base import Coalitions, FunctionGame, Game
from flowopt.games.model import ModelGame
from flowopt.games.network import BarrierGame, LayerGame, RestrictedGame
from flowopt.games.shapley import (
    ShapleyValues,
    banzhaf_values,
    interaction_values,
    shapley_values,
)

__all__ = [
    "BarrierGame",
    "Coalitions",
    "FunctionGame",
    "Game",
    "LayerGame",
    "ModelGame",
    "RestrictedGame",
    "ShapleyValues",
    "banzhaf_values",
    "interaction_values",
    "shapley_values",
]
