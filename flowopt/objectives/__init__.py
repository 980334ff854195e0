"""Objectives over the feasible flows of a network: what each maximises, and facts about it.

An objective is a small frozen value object. It gives a CVXPY expression to maximise (and, if it
likes, constraints); that alone is enough to be solved. Objectives of the form

    |f| + sum_e phi(f_e; u_e)

are `Separable`: they also give phi and the best flow of one edge at a given price, from which
follow the native solver and an error bound that no solver has to be trusted for.
"""

from flowopt.objectives.base import Facts, Objective, Separable
from flowopt.objectives.fair import MaxMinFair, ProportionalFair, reachable_players
from flowopt.objectives.linear import MaxFlow, MinCost
from flowopt.objectives.regularised import Entropy, LogBarrier, Quadratic
from flowopt.objectives.shapley import ShapleyFlow

__all__ = [
    "Entropy",
    "Facts",
    "LogBarrier",
    "MaxFlow",
    "MaxMinFair",
    "MinCost",
    "Objective",
    "ProportionalFair",
    "Quadratic",
    "Separable",
    "ShapleyFlow",
    "reachable_players",
]
