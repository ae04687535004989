"""Reports for terminals, HTML and figures."""

from bilevelrl.verification.reports.overview import missing_figures

__all__ = ["missing_figures"]
