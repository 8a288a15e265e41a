"""The pages of a blinded user study, and the commands that make it and score its answers."""

from mvv.study.build import build_study
from mvv.study.commands import study_make, study_score

__all__ = ["build_study", "study_make", "study_score"]
