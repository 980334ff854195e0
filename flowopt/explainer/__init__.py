"""From a text to an attribution: model, tensor, network, objective and solver together."""

from flowopt.explainer.explainer import Explainer

__all__ = ["Explainer"]
