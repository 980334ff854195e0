"""Certificates: repair a flow to exact feasibility, then bound what it falls short of."""

from flowopt.certificate.certify import certified, failed, repaired

__all__ = ["certified", "failed", "repaired"]
