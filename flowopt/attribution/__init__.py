"""The answer of an explanation: scores with their certificate, words, storage."""

from flowopt.attribution.attribution import Attribution, CertificateSummary
from flowopt.attribution.matrix import AttributionMatrix
from flowopt.attribution.words import WordScore

__all__ = ["Attribution", "AttributionMatrix", "CertificateSummary", "WordScore"]
