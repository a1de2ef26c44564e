"""The falsifier: would a claim about a network still hold if its features were frozen?

    claim = Claim("learns the parity", "nmse", minimum=0.5)
    report = falsify((x, y), mlp(1), claim, folder="parity")
    print(report)                 # learns the parity: needs features. Not explained by …
    report.write("parity")        # report.html, with figures; report.md, report.json

Needs PyTorch: ``pip install "ntkcore[torch]"``.
"""

from ntkcore.falsifier.claims import METRICS, PREDICATES, Claim, Outcome
from ntkcore.falsifier.evidence import Budget
from ntkcore.falsifier.report import Report
from ntkcore.falsifier.run import falsify
from ntkcore.falsifier.study import Training
from ntkcore.falsifier.tasks import TASKS, Arrays, Split
from ntkcore.falsifier.verdict import Gate, Verdict

__all__ = [
    "METRICS",
    "PREDICATES",
    "TASKS",
    "Arrays",
    "Budget",
    "Claim",
    "Gate",
    "Outcome",
    "Report",
    "Split",
    "Training",
    "Verdict",
    "falsify",
]
