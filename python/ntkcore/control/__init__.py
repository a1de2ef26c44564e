"""The falsifier: would a claim about a network still hold if its features were frozen?

    report = falsify((x, y), mlp(1), Claim("learns the parity", "nmse", minimum=0.5), folder="parity")
    print(report)                 # learns the parity: needs features. Not explained by this kernel at this n (1500): …
    report.write("parity")        # report.html, with figures; report.md, report.json

Needs PyTorch: ``pip install "ntkcore[torch]"``.
"""

from ntkcore.control.claims import METRICS, PREDICATES, Claim, Outcome
from ntkcore.control.evidence import Budget
from ntkcore.control.report import Report
from ntkcore.control.run import falsify
from ntkcore.control.study import Training
from ntkcore.control.tasks import TASKS, Arrays, Split
from ntkcore.control.verdict import Gate, Verdict

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
