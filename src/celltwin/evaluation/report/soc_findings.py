"""Why to trust the first of the estimators, or why not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from celltwin.evaluation.report.figures import SECONDS_PER_MINUTE, Figures
from celltwin.evaluation.report.findings import (
    OUT_OF_DOMAIN_WARNING,
    SEEDS_FOR_A_LEAD,
    Finding,
    split_findings,
    stored_findings,
)
from celltwin.evaluation.report.metrics import degrees_text, finite, mean_over_seeds, number_text, or_infinity
from celltwin.evaluation.report.soc_metrics import (
    FULL_START,
    LEAST_COVERAGE,
    LIMIT,
    EstimateMetrics,
    EstimatorRun,
)
from celltwin.evaluation.robustness import NEAR

HONEST_COVERAGE = 0.9  # of the 95 % band, from which on nothing is to be said against it
HONEST_NEES = (0.3, 2.0)  # within which the stated deviation is about right
RELIES_ON_FULL = 2.0  # times more error inside the cycle than from the full start
SAME_HEADLINE = 0.01  # relative difference between the rows and the headline that passes as rounding


def soc_findings(metrics: EstimateMetrics, figures: Figures) -> list[Finding]:
    """Why to trust the first of the leaderboard, or why not: plain text from the run folder's numbers."""
    scored = [model for model in metrics.ranked if finite(model.overall.headline)]
    trained = [model for model in scored if model.trained]
    baselines = [model for model in scored if not model.trained]
    best = next(iter(scored), None)
    findings: list[Finding] = []
    if best is not None:
        if best.trained and baselines:
            findings += _against_baseline(trained, baselines[0])
        if len(trained) > 1:
            findings.append(_lead(best, trained[1]))
        findings += [f for f in (_honest(best), _doubt_under_faults(best), _of_others(metrics, best)) if f]
        findings += [f for f in (_inside(best), _domain(best)) if f]
        findings += _weaknesses(metrics, best)
        findings += _stored(best)
    for model in metrics.ranked:
        findings += _rows(model)
    return findings + split_findings(metrics.dataset.split) + stored_findings(figures, "MAE")


def points_text(value: float | None) -> str:
    return f"{number_text(value, 2)} points"


def _against_baseline(trained: Sequence[EstimatorRun], baseline: EstimatorRun) -> list[Finding]:
    best, theirs = trained[0], or_infinity(baseline.overall.headline)
    named = f"the best baseline, {baseline.name} ({points_text(theirs)})"
    ours = or_infinity(best.overall.headline)
    if ours >= theirs:
        return [("bad", f"No trained estimator beats {named}.")]
    findings: list[Finding] = []
    if ours > 0.0:
        findings.append(("good", f"{best.name} has {number_text(theirs / ours)} times less error than {named}."))
    beaten = [model.name for model in trained if or_infinity(model.overall.headline) >= theirs]
    if beaten:
        findings.append(("bad", f"Trained and yet no better than {named}: {', '.join(beaten)}."))
    return findings


def _lead(best: EstimatorRun, second: EstimatorRun) -> Finding:
    gap = or_infinity(second.overall.headline) - or_infinity(best.overall.headline)
    lead = f"The lead over {second.name} is {points_text(gap)}"
    spreads = [model.overall.headline_std for model in (best, second) if model.overall.headline_std is not None]
    if not spreads:
        return "warn", f"{lead}, from one seed each: how much of it is chance is not known."
    spread = math.hypot(*spreads)
    if gap > SEEDS_FOR_A_LEAD * spread:
        return "good", f"{lead}, more than twice the spread over seeds ({points_text(spread)})."
    return "warn", f"{lead}, within twice the spread over seeds ({points_text(spread)}): not settled."


def _honest(best: EstimatorRun) -> Finding | None:
    rows = best.of_group("start")
    coverage = mean_over_seeds((row.seed, row.coverage) for row in rows).mean
    nees = mean_over_seeds((row.seed, row.nees) for row in rows).mean
    if coverage is None or nees is None:
        return None
    low, high = HONEST_NEES
    how = ": too cautious" if nees < low else ": too sure of itself" if nees > high else ""
    text = (
        f"Over all starts {number_text(100 * coverage)} % of the labels lie within the 95 % band of {best.name}; "
        f"its squared error is {number_text(nees, 2)} times what it states (NEES){how}."
    )
    if coverage < LEAST_COVERAGE:
        return "bad", text
    return ("good" if coverage >= HONEST_COVERAGE and not how else "warn"), text


def _doubt_under_faults(best: EstimatorRun) -> Finding | None:
    if not best.stresses:
        return None
    over = {condition: stress for condition, stress in best.stresses.items() if stress.over}
    untold = [
        f"{condition.title} ({points_text(stress.mae.mean)}, {number_text(100 * stress.coverage, 0)} %)"
        if stress.coverage is not None
        else condition.title
        for condition, stress in over.items()
        if stress.untold
    ]
    of = f"of {len(best.stresses)} conditions"
    if not over:
        return "good", f"{best.name} stays within {number_text(LIMIT, 0)} points of mean error under all {of[3:]}."
    above = f"{best.name} is over {number_text(LIMIT, 0)} points of mean error under {len(over)} {of}"
    least = f"{number_text(100 * LEAST_COVERAGE, 0)} %"
    if untold:
        return "bad", f"{above}; its 95 % band holds less than {least} of the labels under {'; '.join(untold)}."
    return "good", f"{above}, and says so: its 95 % band holds at least {least} of the labels under each of them."


def _of_others(metrics: EstimateMetrics, best: EstimatorRun) -> Finding | None:
    counts = [
        (model.name, sum(stress.untold for stress in model.stresses.values()))
        for model in metrics.ranked
        if model is not best
    ]
    told = ", ".join(f"{name} {count}" for name, count in counts if count)
    if not told:
        return None
    return (
        "note",
        f"Conditions with an error over {number_text(LIMIT, 0)} points that the others do not own up to: {told}.",
    )


def _inside(best: EstimatorRun) -> Finding | None:
    inside = mean_over_seeds((r.seed, r.mae) for r in best.of_group("start") if r.condition != FULL_START.name).mean
    full = best.overall.mae
    if inside is None or full is None or not finite(full):
        return None
    text = (
        f"{best.name} is {points_text(inside)} wrong from starts inside the cycle and {points_text(full)} from its "
        "first sample"
    )
    if inside > RELIES_ON_FULL * full:
        return "warn", f"{text}: it does better where it can take the cell to be full."
    return "good", f"{text}."


def _domain(best: EstimatorRun) -> Finding | None:
    rows = [(r.out_of_domain, r.n) for r in best.of_group("start") if r.out_of_domain is not None and r.n]
    if not rows:
        return None
    share = sum(out * n for out, n in rows) / sum(n for _, n in rows)
    text = f"{number_text(100 * share, 2)} % of the test samples lie outside the training domain of {best.name}."
    return ("good" if share <= OUT_OF_DOMAIN_WARNING else "warn"), text


def _weaknesses(metrics: EstimateMetrics, best: EstimatorRun) -> list[Finding]:
    findings: list[Finding] = []
    at = [(f.mean, ambient) for ambient in metrics.ambients if finite((f := best.over_starts(ambient)).mean)]
    failing = [f"{degrees_text(where)} ({points_text(mae)})" for mae, where in at if or_infinity(mae) > LIMIT]
    if failing:
        over = f"{number_text(LIMIT, 0)} points"
        findings.append(("bad", f"Over all starts {best.name} is over {over} at {', '.join(failing)}."))
    elif len(at) > 1:
        worst, where = max(at, key=lambda pair: or_infinity(pair[0]))
        findings.append(("note", f"{best.name} is weakest at {degrees_text(where)}: {points_text(worst)}, all starts."))
    stresses = [(stress.mae.mean, condition) for condition, stress in best.stresses.items() if finite(stress.mae.mean)]
    if len(stresses) > 1:
        worst, condition = max(stresses, key=lambda pair: or_infinity(pair[0]))
        findings.append(("note", f"What troubles {best.name} most is {condition.title}: {points_text(worst)}."))
    return findings


def _stored(best: EstimatorRun) -> list[Finding]:
    stored = [(condition, stress) for condition, stress in best.stresses.items() if condition.group == "stored"]
    if not stored:
        return []
    told = [
        f"{condition.title}: "
        + (f"{number_text(stress.returned / SECONDS_PER_MINUTE)} min" if stress.returned is not None else "never")
        + (f", in {stress.back} of {stress.runs} runs" if 0 < stress.back < stress.runs else "")
        for condition, stress in stored
    ]
    always = all(stress.back == stress.runs for _, stress in stored)
    text = f"Time until {best.name} is back under {number_text(NEAR, 0)} points for good, from a wrong stored value: "
    return [("good" if always else "warn", f"{text}{'; '.join(told)}.")]


def _rows(model: EstimatorRun) -> list[Finding]:
    """What is wrong with the rows of a model."""
    if not model.rows:
        return [("bad", f"{model.name}: no test rows.")]
    failed = sum(not finite(row.mae) for row in model.rows)
    if failed:
        return [("bad", f"{model.name}: {failed} of {len(model.rows)} rows have no finite MAE.")]
    starts = [stress.mae.mean for condition, stress in model.stresses.items() if condition.group == "start"]
    means = [mean for mean in starts if mean is not None]
    if not means or not finite(model.overall.headline):
        return [("bad", f"{model.name}: no start with nothing known was scored.")] if not means else []
    if not math.isclose(sum(means) / len(means), or_infinity(model.overall.headline), rel_tol=SAME_HEADLINE):
        return [("bad", f"The rows of {model.name} give another mean over the starts than its headline.")]
    return []
