"""Why to trust the first of the leaderboard, or why not."""

from __future__ import annotations

import math
from typing import Literal

from celltwin.evaluation.report.figures import Figures
from celltwin.evaluation.report.metrics import (
    Metrics,
    ModelRun,
    Split,
    coverage_at,
    degrees_text,
    finite,
    mean_rmse,
    number_text,
    or_infinity,
    percent_text,
    rmse_at,
)
from celltwin.learning.bands import LEVEL

OUT_OF_DOMAIN_WARNING = 0.01  # share of test samples
SHORT_OF_LEVEL = 0.05  # of the share that a band is to hold, at one ambient temperature
SEEDS_FOR_A_LEAD = 2.0  # a lead counts as settled above this many standard deviations over seeds

Finding = tuple[Literal["good", "warn", "bad", "note"], str]


def findings_of(metrics: Metrics, figures: Figures) -> list[Finding]:
    """Why to trust the first of the leaderboard, or why not: plain text from the run folder's numbers."""
    trained = [model for model in metrics.ranked if model.trained and finite(model.overall.rmse)]
    baselines = [model for model in metrics.ranked if not model.trained and finite(model.overall.rmse)]
    best = next(iter(trained or baselines), None)
    findings: list[Finding] = []
    if best is not None:
        if best.trained and baselines:
            findings.append(_against_baseline(best, baselines[0]))
        if len(trained) > 1:
            findings.append(_lead(best, trained[1]))
        said = (_generalisation(best), _bands(metrics, best), _domain(best), _weakest(metrics, best))
        findings += [finding for finding in said if finding]
    for model in metrics.ranked:
        failed = sum(not finite(row.rmse) for row in model.test)
        if failed or not model.test:
            found = f"{failed} of {len(model.test)} test rows have no finite RMSE" if failed else "no test rows"
            findings.append(("bad", f"{model.name}: {found}."))
    return findings + split_findings(metrics.dataset.split) + stored_findings(figures, "RMSE")


def stored_findings(figures: Figures, what: str) -> list[Finding]:
    """Whether the stored predictions give what the rows say."""
    if figures.differing:
        more = len(figures.differing) - 5
        some = "; ".join(figures.differing[:5]) + (f" and {more} more" if more > 0 else "")
        return [("bad", f"The stored predictions give another {what} than metrics.json for {some}.")]
    if figures.compared:
        return [("good", f"The stored predictions give the {what} of metrics.json in all {figures.compared} cases.")]
    return []


def _against_baseline(best: ModelRun, baseline: ModelRun) -> Finding:
    ours, theirs = or_infinity(best.overall.rmse), or_infinity(baseline.overall.rmse)
    numbers = f"{baseline.name} ({number_text(theirs)} mV)"
    if ours >= theirs or ours == 0.0:
        return "bad", f"No trained model beats the baseline {numbers}."
    return (
        "good",
        f"{best.name} has {number_text(theirs / ours)} times less error than the best baseline, {numbers}.",
    )


def _lead(best: ModelRun, second: ModelRun) -> Finding:
    gap = or_infinity(second.overall.rmse) - or_infinity(best.overall.rmse)
    lead = f"The lead over {second.name} is {number_text(gap, 2)} mV"
    spreads = [model.overall.rmse_std for model in (best, second) if model.overall.rmse_std is not None]
    if not spreads:
        return "warn", f"{lead}, from one seed each: how much of it is chance is not known."
    spread = math.hypot(*spreads)
    if gap > SEEDS_FOR_A_LEAD * spread:
        return "good", f"{lead}, more than twice the spread over seeds ({number_text(spread, 2)} mV)."
    return "warn", f"{lead}, within twice the spread over seeds ({number_text(spread, 2)} mV): not settled."


def _generalisation(best: ModelRun) -> Finding | None:
    test = mean_rmse(best.test).mean
    validate = mean_rmse(row for row in best.rows if row.split == "validate").mean
    if test is None or validate is None or not math.isfinite(test):
        return None
    text = f"Mean RMSE per cycle: {number_text(test)} mV on test, {number_text(validate)} mV on validation cycles."
    return ("good" if test <= 1.5 * validate else "warn"), text


def _bands(metrics: Metrics, best: ModelRun) -> Finding | None:
    at = [(share, ambient) for ambient in metrics.ambients if (share := coverage_at(best, ambient)) is not None]
    if best.overall.coverage is None or not at:
        return None
    (least, where_least), (most, where_most) = (extreme(at, key=lambda pair: pair[0]) for extreme in (min, max))
    text = (
        f"The {100 * LEVEL:g} % band of {best.name} (± {number_text(best.overall.half_width)} mV) holds "
        f"{percent_text(best.overall.coverage)} % of the test samples, from {percent_text(least)} % at "
        f"{degrees_text(where_least)} to {percent_text(most)} % at {degrees_text(where_most)}."
    )
    return ("good" if LEVEL - least <= SHORT_OF_LEVEL else "warn"), text


def _domain(best: ModelRun) -> Finding | None:
    rows = [(row.out_of_domain, row.n) for row in best.test if row.out_of_domain is not None and row.n]
    if not rows:
        return None
    share = sum(out * n for out, n in rows) / sum(n for _, n in rows)
    text = f"{number_text(100 * share, 2)} % of the test samples lie outside the training domain of {best.name}."
    return ("good" if share <= OUT_OF_DOMAIN_WARNING else "warn"), text


def _weakest(metrics: Metrics, best: ModelRun) -> Finding | None:
    at = [(figure.mean, ambient) for ambient in metrics.ambients if finite((figure := rmse_at(best, ambient)).mean)]
    if len(at) < 2:
        return None
    worst, where = max(at, key=lambda pair: or_infinity(pair[0]))
    return "note", f"{best.name} is weakest at {degrees_text(where)}: {number_text(worst)} mV."


def split_findings(split: Split) -> list[Finding]:
    if not split.test:
        return []
    seen = sorted(set(split.test) & {*split.train, *split.validate_})
    if seen:
        return [("bad", f"Test cycles that training or validation saw too: {', '.join(seen)}.")]
    return [("good", f"None of the {len(split.test)} test cycles is among those of training and validation.")]
