"""A blinded user study: who is shown what, reading the answers, and the statistics of preference and agreement."""

from eval.study.agreement import fleiss_kappa, krippendorff_alpha
from eval.study.answers import Judgement, Rater, Read, Rules, read_answers
from eval.study.design import ANSWERS, CRITERIA, Criterion, Plan, make_plan, read_key
from eval.study.results import StudyResult, score, write_result

__all__ = [
    "ANSWERS",
    "CRITERIA",
    "Criterion",
    "Judgement",
    "Plan",
    "Rater",
    "Read",
    "Rules",
    "StudyResult",
    "fleiss_kappa",
    "krippendorff_alpha",
    "make_plan",
    "read_answers",
    "read_key",
    "score",
    "write_result",
]
