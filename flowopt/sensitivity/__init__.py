"""How attributions change with the capacities, by implicit differentiation of the optimum."""

from flowopt.sensitivity.gradient import CapacityGradient
from flowopt.sensitivity.implicit import Sensitivity

__all__ = ["CapacityGradient", "Sensitivity"]
