"""Plans: what an estimator computes, without what every call of it costs.

scikit-learn checks its input anew at each step, builds a sparse matrix for one text, and starts a pool for one row. A
plan does the arithmetic only. It is made for estimators whose every part is known to the letter (a subclass is not),
and it must answer a trial as the estimator does, or it is dropped. What it declines (NaN, say) the estimator answers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from loaderd.frameworks.sklearn.plans.linear import linear_plan
from loaderd.frameworks.sklearn.plans.plan import Declined, Plan
from loaderd.frameworks.sklearn.plans.text import text_plan
from loaderd.frameworks.sklearn.plans.trees import trees_plan

__all__ = ["Declined", "Plan", "plan_for"]

log = logging.getLogger(__name__)

ATOL = 1e-9  # of an answer near zero, unless it must be exact


def plan_for(estimator: Any, method: str, own: Callable[[Any], Any], sample: Any) -> Plan | None:
    """A plan for one method of a fitted estimator, tried; None where there is none or it answers otherwise.

    own: asks the estimator itself. sample: items of the model, a list of texts or rows.
    """
    try:
        make = [text_plan] if isinstance(sample, list) else [linear_plan, trees_plan]
        plan = next((found for each in make if (found := each(estimator, method)) is not None), None)
        if plan is None:
            return None
        if _agrees(plan, own, sample):
            log.info("%s() of %s goes by a %s", method, type(estimator).__name__, type(plan).__name__)
            return plan
        log.warning("a plan for %s answers otherwise than %s(); it is not used", type(estimator).__name__, method)
    except Exception:  # of parts that are not as they should be: whatever it is, the estimator has the say
        log.exception("no plan could be made for %s", type(estimator).__name__)
    return None


def _agrees(plan: Plan, own: Callable[[Any], Any], sample: Any) -> bool:
    """Whether the plan answers the sample, its trial and an item of that alone as the estimator does.

    One item alone goes another way than several; the empty text and the row of zeros are the first of their trials.
    """
    trial = plan.trial()
    for batch in (sample, trial, trial[:1]):
        try:
            got = plan(batch)
        except Declined:
            if batch is not sample:
                return False
        else:
            if not _is_same(got, own(batch), plan.rtol):
                return False
    return True


def _is_same(got: np.ndarray, wanted: Any, rtol: float) -> bool:
    wanted = np.asarray(wanted)
    if got.shape != wanted.shape:
        return False
    if rtol == 0.0 or wanted.dtype.kind not in "fc":
        return bool((got == wanted).all())
    return bool(np.allclose(got, wanted, rtol=rtol, atol=max(ATOL, rtol)))
