"""What runs measured: read from their folders, without torch and without the code that ran.

from memrl import results
runs = results.load("outputs/tmaze_passive")
"""

from memrl.results.export import frame
from memrl.results.runs import Run, labels, load, varying

__all__ = ["Run", "frame", "labels", "load", "varying"]
