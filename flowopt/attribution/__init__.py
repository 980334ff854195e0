"""What an explanation returns: scores of tokens and words, and what is proved of them."""

from flowopt.attribution.attribution import Attribution, CertificateSummary

__all__ = ["Attribution", "CertificateSummary"]
