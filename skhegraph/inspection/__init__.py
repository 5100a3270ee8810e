"""Looking inside: a report, explanations, what to label next, pictures in scikit-learn's style.

Every display has `from_estimator`, which computes and draws, `plot`, which draws again, and what
it draws as attributes. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from skhegraph.inspection.adaptation import AdaptationDisplay
from skhegraph.inspection.explanation import ExplanationDisplay, explain
from skhegraph.inspection.graph import GraphDisplay
from skhegraph.inspection.html_report import report
from skhegraph.inspection.labelling import next_to_label
from skhegraph.inspection.shots import ShotsDisplay

__all__ = [
    "AdaptationDisplay",
    "ExplanationDisplay",
    "GraphDisplay",
    "ShotsDisplay",
    "explain",
    "next_to_label",
    "report",
]
