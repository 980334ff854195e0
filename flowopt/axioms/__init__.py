"""The axiom laboratory: which claims about attributions are true, shown by machine.

Games and their Shapley values; axioms as checks with a tolerance, a worst violation and a
smallest counterexample; distance from Shapley values. `flowopt.axioms.strategies` has hypothesis
strategies for tests of your own.
"""

from flowopt.axioms.checks import AXIOMS, Axiom, Finding
from flowopt.axioms.counterexample import Counterexample
from flowopt.axioms.distance import Distance, distances, shapley_distances
from flowopt.axioms.methods import Answer, Method, as_method, per_pair, rollout
from flowopt.axioms.report import AxiomReport, AxiomResult, AxiomTable
from flowopt.axioms.samples import random_networks
from flowopt.axioms.verify import assert_holds, check, survey, verify
from flowopt.games import (
    BarrierGame,
    FunctionGame,
    Game,
    LayerGame,
    ModelGame,
    RestrictedGame,
    ShapleyValues,
    banzhaf_values,
    interaction_values,
    shapley_values,
)
from flowopt.intervals import WellDefined, ambiguity, well_defined

__all__ = [
    "AXIOMS",
    "Answer",
    "Axiom",
    "AxiomReport",
    "AxiomResult",
    "AxiomTable",
    "BarrierGame",
    "Counterexample",
    "Distance",
    "Finding",
    "FunctionGame",
    "Game",
    "LayerGame",
    "Method",
    "ModelGame",
    "RestrictedGame",
    "ShapleyValues",
    "WellDefined",
    "ambiguity",
    "as_method",
    "assert_holds",
    "banzhaf_values",
    "check",
    "distances",
    "interaction_values",
    "per_pair",
    "random_networks",
    "rollout",
    "shapley_distances",
    "shapley_values",
    "survey",
    "verify",
    "well_defined",
]
