"""Flow networks: as given (`model`, `parts`), and flat for computing (`build`, `graph`)."""

from flowopt.network.model import FlowNetwork
from flowopt.network.parts import Block, FloatArray, IntArray, Link, capacity_array

__all__ = ["Block", "FloatArray", "FlowNetwork", "IntArray", "Link", "capacity_array"]
