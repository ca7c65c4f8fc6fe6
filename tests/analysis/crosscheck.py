"""Every method against a library that others trust, on data made afresh.

    python tests/analysis/crosscheck.py target/debug/examples/methods [SEED]

statsmodels, scipy, linearmodels and spotify-confidence answer the same questions; where no library does, the
definition is worked out by brute force (a mixture by quadrature, a policy's value by going through all lists).
The numbers must agree to the tolerance beside each comparison. Without a seed one is drawn and printed, so that every run is new and
any can be had again.
"""

import itertools
import json
import math
import secrets
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import scipy.optimize
import scipy.stats as st
import statsmodels.api as sm
from linearmodels.iv import IV2SLS
from linearmodels.panel import PanelOLS
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import NormalIndPower
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

warnings.simplefilter("ignore")

ROUNDS = 5


class Check:
    """Asks the program, compares, counts."""

    def __init__(self, program, seed):
        self.program, self.seed, self.done, self.worst = program, seed, {}, {}
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, method, **question):
        self.process.stdin.write(json.dumps({"method": method, **question}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        if isinstance(answer, dict) and "error" in answer:
            raise SystemExit(f"seed {self.seed}: {method}: {answer['error']}")
        return answer

    def same(self, what, ours, theirs, rel=1e-9, abs_=1e-12):
        ours, theirs = np.atleast_1d(np.asarray(ours, float)), np.atleast_1d(np.asarray(theirs, float))
        if ours.shape != theirs.shape:
            raise SystemExit(f"seed {self.seed}: {what}: {ours.shape} numbers here, {theirs.shape} there")
        for a, b in zip(ours.ravel(), theirs.ravel()):
            if not math.isclose(a, b, rel_tol=rel, abs_tol=abs_):
                raise SystemExit(f"seed {self.seed}: {what}: {a!r} here, {b!r} there (tolerance {rel:g})")
            self.done[what] = self.done.get(what, 0) + 1
            self.worst[what] = max(self.worst.get(what, 0.0), abs(a - b) / max(abs(b), 1e-300))


def lists(array):
    return np.asarray(array, float).tolist()


def means(check, rng):
    c, t = rng.gamma(0.5, 8, rng.integers(40, 900)), rng.gamma(0.6, 8, rng.integers(40, 900))
    ours = check.ask("mean", control=lists(c), treatment=lists(t), confidence=0.9)
    welch = st.ttest_ind(t, c, equal_var=False)
    check.same("mean: Welch (scipy)", [ours["p_welch"], ours["welch"]["df"]], [welch.pvalue, welch.df])
    compare = CompareMeans(DescrStatsW(t), DescrStatsW(c))
    z, p = compare.ztest_ind(usevar="unequal")
    check.same("mean: z (statsmodels)", [ours["normal"]["delta"] / ours["normal"]["se"], ours["p"]], [z, p])
    low, high = compare.zconfint_diff(0.1, usevar="unequal")
    check.same("mean: interval (statsmodels)", [ours["interval"]["low"], ours["interval"]["high"]], [low, high])
    # Fieller: the ends are where m_t - (1 + r) m_c is just significant.
    vc, vt = c.var(ddof=1) / len(c), t.var(ddof=1) / len(t)
    z90 = st.norm.ppf(0.95)
    a, b, k = c.mean() ** 2 - z90**2 * vc, -2 * t.mean() * c.mean(), t.mean() ** 2 - z90**2 * vt
    ends = np.sort(np.roots([a, b, k])) - 1
    fieller = [v for v in flatten(ours["relative"]["fieller"]) if isinstance(v, float)]
    check.same("relative: Fieller (numpy roots)", sorted(fieller), ends, 1e-7)


def flatten(value):
    if isinstance(value, dict):
        for part in value.values():
            yield from flatten(part)
    elif isinstance(value, list):
        for part in value:
            yield from flatten(part)
    else:
        yield value


def proportions(check, rng):
    n = rng.integers(50, 5000, 2)
    k = rng.binomial(n, rng.uniform(0.1, 0.9))
    share = lambda i: {"successes": int(k[i]), "n": int(n[i])}
    ours = check.ask("proportion", control=share(0), treatment=share(1), confidence=0.95)
    low, high = confint_proportions_2indep(k[1], n[1], k[0], n[0], method="wald", compare="diff")
    check.same("proportion: Wald (statsmodels)", [ours["interval"]["low"], ours["interval"]["high"]], [low, high])
    wilson = proportion_confint(k[1], n[1], method="wilson")
    check.same("proportion: Wilson (statsmodels)", [ours["wilson"]["low"], ours["wilson"]["high"]], wilson)


def ratios(check, rng):
    arms = []
    for _ in range(2):
        d = 1 + rng.poisson(10, rng.integers(60, 600))
        arms.append(np.column_stack([rng.binomial(d, rng.beta(1, 3, len(d))), d]).astype(float))
    ours = check.ask("ratio", control=lists(arms[0]), treatment=lists(arms[1]), confidence=0.95)
    values, variances = [], []
    for arm in arms:
        # y = R d + e with the constant as instrument is the ratio, its robust error the delta method (ddof 0).
        fit = IV2SLS(arm[:, 0], None, arm[:, 1], np.ones(len(arm))).fit(cov_type="robust")
        values.append(fit.params.iloc[0])
        variances.append(fit.std_errors.iloc[0] ** 2 * len(arm) / (len(arm) - 1))
    check.same(
        "ratio: delta method (linearmodels)",
        [ours["normal"]["delta"], ours["normal"]["se"]],
        [values[1] - values[0], math.sqrt(sum(variances))],
        1e-8,
    )


def covariates(check, rng):
    arms = []
    for shift in (0, 0.3):
        x = rng.gamma(2, 3, 400)
        arms.append(np.column_stack([0.8 * x + shift + rng.normal(0, 2, 400), x]))
    ours = check.ask("cuped", control=lists(arms[0]), treatment=lists(arms[1]))
    both = np.vstack(arms)
    theta = sm.OLS(both[:, 0], sm.add_constant(both[:, 1])).fit().params[1]
    adjusted = [a[:, 0] - theta * (a[:, 1] - both[:, 1].mean()) for a in arms]
    welch = st.ttest_ind(adjusted[1], adjusted[0], equal_var=False)
    check.same("CUPED: theta (statsmodels)", ours["theta"], [theta], 1e-8)
    check.same(
        "CUPED: effect (scipy)",
        ours["effect"]["delta"] / ours["effect"]["se"],
        welch.statistic,
        1e-8,
    )


def sequential(check, rng):
    from spotify_confidence.analysis.frequentist.sequential_bound_solver import bounds

    looks = np.append(np.sort(rng.uniform(0.1, 0.95, rng.integers(1, 5))), 1.0)
    looks = looks[np.append(True, np.diff(looks) > 0.02)]
    alpha, rho = float(rng.choice([0.05, 0.025, 0.01])), float(rng.choice([1.5, 2.0, 3.0]))
    ours = check.ask("group_sequential", alpha=alpha, spending={"power": rho}, looks=lists(looks))
    theirs = bounds(looks, alpha, rho, 8.0, 1, max_nints=None).bounds
    # Its grid is coarse: good to some 1e-4.
    check.same("group-sequential bounds (spotify-confidence)", [look["z"] for look in ours], theirs, 5e-4)
    # Where one look precedes, the second bound solves a bivariate normal exactly.
    t = float(rng.uniform(0.2, 0.8))
    ours = check.ask("group_sequential", alpha=alpha, spending={"power": rho}, looks=[t, 1.0])
    z1, z2 = (look["z"] for look in ours)
    inside = st.multivariate_normal.cdf([z1, z2], cov=[[1, math.sqrt(t)], [math.sqrt(t), 1]], abseps=1e-9, releps=1e-9)
    check.same("group-sequential level (scipy bivariate normal)", 1 - inside, alpha, 1e-5)


def sizes(check, rng):
    effect, ratio = rng.uniform(0.02, 0.3), rng.uniform(0.5, 2)
    alpha, power = rng.uniform(0.01, 0.1), rng.uniform(0.6, 0.95)
    target = dict(variance=1.0, effect=effect, variance_reduction=0.0, alpha=alpha, power=power, inflation=1.0)
    ours = check.ask("size", target=target, shares=[1 / (1 + ratio), ratio / (1 + ratio)])
    n1 = NormalIndPower().solve_power(effect, alpha=alpha, power=power, ratio=ratio, alternative="larger")
    check.same("sample size (statsmodels)", ours["units"]["control"], math.ceil(n1 - 1e-9), 1e-6, 1)
    got = NormalIndPower().power(
        effect, ours["units"]["control"], alpha, ratio=ours["units"]["treatment"] / ours["units"]["control"], alternative="larger"
    )
    check.same("power (statsmodels)", ours["power"], got, 1e-9)


def several(check, rng):
    p = rng.uniform(0, 0.3, rng.integers(2, 9)) ** 2
    ours = check.ask("multiplicity", p=lists(p))
    for name in ours:
        check.same(f"multiplicity: {name} (statsmodels)", ours[name], multipletests(p, method=name)[1])


def segment_effects(check, rng):
    k = rng.integers(3, 9)
    se = rng.uniform(0.1, 0.4, k)
    effects = rng.normal(0.2, 0.4, k) + rng.normal(0, se)
    ours = check.ask("segments", effects=lists(np.column_stack([effects, se])))
    theirs = combine_effects(effects, se**2, method_re="dl")
    # A variance below 0, which DerSimonian and Laird set to 0, is left as it is there.
    average = theirs.mean_effect_re if theirs.tau2 > 0 else theirs.mean_effect_fe
    check.same(
        "segments: Q, tau², pooled (statsmodels)",
        [ours["q"], ours["tau_squared"], ours["pooled"]["delta"], ours["pooled"]["se"], ours["random_effects"]["delta"]],
        [theirs.q, max(theirs.tau2, 0), theirs.mean_effect_fe, theirs.sd_eff_w_fe, average],
    )
    check.same("segments: interaction p (scipy)", ours["p"], st.chi2.sf(theirs.q, k - 1))


def new_things(check, rng):
    days, se = np.arange(14), rng.uniform(0.03, 0.1, 14)
    effects = 0.8 - 0.2 * np.log1p(days) + rng.normal(0, se)
    ours = check.ask("novelty", days=days.tolist(), effects=lists(np.column_stack([effects, se])))
    fit = sm.WLS(effects, sm.add_constant(np.log1p(days)), weights=1 / se**2).fit(cov_type="fixed scale")
    check.same(
        "novelty: slope (statsmodels)",
        [ours["intercept"]["delta"], ours["slope"]["delta"], ours["slope"]["se"]],
        [fit.params[0], fit.params[1], fit.bse[1]],
    )


def differences(check, rng):
    units, periods, first = 8, 6, 3
    noise = rng.normal(0, 1, (units, periods)).cumsum(axis=1) * 0.5
    treated = np.arange(units) < 4
    y = rng.normal(10, 2, units)[:, None] + rng.normal(0, 1, periods) + noise + 1.5 * np.outer(treated, np.arange(periods) >= first)
    ours = check.ask(
        "difference_in_differences", outcomes=lists(y), adoption=[first if is_treated else None for is_treated in treated]
    )
    frame = pd.DataFrame(
        [(u, p, y[u, p], treated[u], p >= first) for u in range(units) for p in range(periods)], columns=["u", "p", "y", "g", "post"]
    )
    frame["d"] = (frame.g & frame.post).astype(float)
    x = sm.add_constant(frame[["g", "post", "d"]].astype(float))
    naive = sm.OLS(frame.y, x).fit()
    clustered = sm.OLS(frame.y, x).fit(cov_type="cluster", cov_kwds={"groups": frame.u}, use_t=True)
    check.same("DiD: OLS (statsmodels)", [ours["naive"]["delta"], ours["naive"]["se"]], [naive.params["d"], naive.bse["d"]], 1e-8)
    check.same(
        "DiD: clustered (statsmodels)", [ours["clustered"]["se"], ours["p"]["clustered"]], [clustered.bse["d"], clustered.pvalues["d"]], 1e-7
    )
    panel = frame.set_index(["u", "p"])
    two_way = PanelOLS(panel.y, panel[["d"]], entity_effects=True, time_effects=True).fit(cov_type="unadjusted")
    check.same(
        "DiD: two-way fixed effects (linearmodels)",
        [ours["two_way"]["delta"], ours["two_way"]["se"]],
        [two_way.params["d"], two_way.std_errors["d"]],
        1e-7,
    )
    change = y[:, first:].mean(axis=1) - y[:, :first].mean(axis=1)
    check.same("DiD: unit changes, pooled (scipy)", ours["p"]["pooled"], st.ttest_ind(change[treated], change[~treated]).pvalue, 1e-8)
    check.same(
        "DiD: unit changes, Welch (scipy)", ours["p"]["welch"], st.ttest_ind(change[treated], change[~treated], equal_var=False).pvalue, 1e-8
    )
    seen = change[treated].mean() - change[~treated].mean()
    all_splits = []
    for chosen in itertools.combinations(range(units), 4):
        mask = np.isin(np.arange(units), chosen)
        all_splits.append(change[mask].mean() - change[~mask].mean())
    all_splits = np.array(all_splits)
    check.same(
        "DiD: permutation (all splits)",
        [ours["permutation"]["p_one_sided"], ours["permutation"]["p_two_sided"]],
        [(all_splits >= seen - 1e-9).mean(), (np.abs(all_splits) >= abs(seen) - 1e-9).mean()],
    )


def encouragement(check, rng):
    arms = []
    for rate in (0.2, 0.6):
        n = rng.integers(80, 400)
        d = rng.binomial(1, rate, n)
        arms.append(np.column_stack([2 * d + rng.normal(3, 2, n), d]).astype(float))
    ours = check.ask("encouragement", control=lists(arms[0]), encouraged=lists(arms[1]), confidence=0.95)
    both = np.vstack(arms)
    z = np.repeat([0.0, 1.0], [len(arms[0]), len(arms[1])])
    one = np.ones(len(both))
    fit = IV2SLS(both[:, 0], one, both[:, 1], z).fit(cov_type="robust")
    check.same("IV: two-stage least squares (linearmodels)", [ours["late"]["delta"], ours["late"]["se"]], [fit.params.iloc[1], fit.std_errors.iloc[1]], 1e-8)
    check.same("IV: intercept (linearmodels)", ours["intercept"], fit.params.iloc[0], 1e-8)
    first = sm.OLS(both[:, 1], sm.add_constant(z)).fit(cov_type="HC0")
    check.same("IV: first-stage F, robust (statsmodels)", ours["f"], first.tvalues[1] ** 2, 1e-8)
    # At an end of the Anderson-Rubin set, y - b d is just significant in z; HC2 is each arm's own variance.
    crit = st.chi2.ppf(0.95, 1)
    for b in (v for v in flatten(ours["anderson_rubin"]) if isinstance(v, float)):
        fit = sm.OLS(both[:, 0] - b * both[:, 1], sm.add_constant(z)).fit(cov_type="HC2")
        check.same("IV: Anderson-Rubin ends (statsmodels)", fit.tvalues[1] ** 2, crit, 1e-6)


def regressions(check, rng):
    n = 120
    x = np.column_stack([np.ones(n), rng.normal(size=n), rng.gamma(2, 1, n)])
    y = x @ [1, 0.5, -0.3] + rng.normal(0, 1 + np.abs(x[:, 1]))
    clusters = rng.integers(0, 12, n)
    clusters[:12] = np.arange(12)
    for errors in ("classical", "hc0", "hc1", "hc2", "hc3", "clustered"):
        ours = check.ask("regression", x=lists(x), y=lists(y), errors=errors, clusters=clusters.tolist(), instruments=[])
        model = sm.OLS(y, x)
        if errors == "classical":
            fit = model.fit()
        elif errors == "clustered":
            fit = model.fit(cov_type="cluster", cov_kwds={"groups": clusters}, use_t=True)
        else:
            fit = model.fit(cov_type=errors.upper(), use_t=True)
        check.same(f"regression: {errors} (statsmodels)", [e["se"] for e in ours["effects"]], fit.bse, 1e-8)
        check.same(f"regression: {errors} p (statsmodels)", ours["p"], fit.pvalues, 1e-7, 1e-15)
    z = np.column_stack([x[:, 0], x[:, 1], x[:, 2] + rng.normal(size=n)])
    ours = check.ask("regression", x=lists(x), y=lists(y), errors="hc0", clusters=[], instruments=lists(z))
    fit = IV2SLS(y, x[:, :2], x[:, 2], z[:, 2]).fit(cov_type="robust")
    check.same(
        "regression: instruments (linearmodels)",
        [ours["effects"][2]["delta"], ours["effects"][2]["se"]],
        [fit.params.iloc[2], fit.std_errors.iloc[2]],
        1e-8,
    )


def archives(check, rng):
    n = int(rng.integers(6, 26))
    off = rng.normal(0, 0.01, n)
    se = rng.uniform(0.001, 0.004, n)
    on = 0.4 * off + rng.normal(0, 0.003, n)
    ours = check.ask(
        "offline_online", experiments=[{"offline": a, "online": b, "se": c} for a, b, c in zip(lists(off), lists(on), lists(se))], confidence=0.95
    )
    for name, test in (("pearson", st.pearsonr), ("spearman", st.spearmanr), ("kendall", st.kendalltau)):
        theirs = test(off, on)
        # scipy takes the normal approximation above 33 only where there are no ties, as here.
        check.same(f"offline-online: {name} (scipy)", [ours[name]["value"], ours[name]["p"]], [theirs.statistic, theirs.pvalue], 1e-7)
    interval = st.pearsonr(off, on).confidence_interval(0.95)
    check.same("offline-online: Fisher (scipy)", [ours["pearson_interval"]["low"], ours["pearson_interval"]["high"]], interval, 1e-8)
    fit = sm.WLS(on, sm.add_constant(off), weights=1 / se**2).fit()
    check.same("offline-online: slope (statsmodels)", [ours["intercept"], ours["slope"]], fit.params, 1e-7)


def ratios_of_samples(check, rng):
    weights = rng.uniform(0.5, 2, rng.integers(2, 5))
    counts = rng.multinomial(20_000, weights / weights.sum())
    ours = check.ask("sample_ratio", counts=counts.tolist(), weights=lists(weights))
    theirs = st.chisquare(counts, counts.sum() * weights / weights.sum())
    check.same("sample ratio: chi-square (scipy)", [ours["fixed"]["chi_square"], ours["fixed"]["p"]], [theirs.statistic, theirs.pvalue], 1e-8)
    # The e-value: Dirichlet-multinomial against multinomial.
    a = 100 * len(counts) * weights / weights.sum()
    ln_e = st.dirichlet_multinomial(a, counts.sum()).logpmf(counts) - st.multinomial(counts.sum(), weights / weights.sum()).logpmf(counts)
    check.same("sample ratio: e-value (scipy)", ours["sequential"]["ln_e"], ln_e, 1e-7, 1e-7)


def interleaved(check, rng):
    a, b, ties = (int(v) for v in rng.multinomial(1000, [0.44, 0.4, 0.16]))
    users = rng.normal(0.05, 1, 80)
    ours = check.ask("interleaving", sessions={"a": a, "b": b, "ties": ties}, users=lists(users))
    check.same("interleaving: sign test (scipy)", ours["sessions"]["p_sign"], st.binomtest(a, a + b).pvalue, 1e-8)
    check.same("interleaving: users (scipy)", ours["p"], st.ttest_1samp(users, 0).pvalue, 1e-9)


def quantiles(check, rng):
    values, nu = np.sort(rng.exponential(10, 4000)), float(rng.choice([0.5, 0.9, 0.95, 0.99]))
    ours = check.ask("quantile", values=lists(values), nu=nu, confidence=0.95)
    theirs = np.quantile(values, nu, method="inverted_cdf")
    check.same("quantile: value (numpy)", ours["value"], theirs, 1e-12)
    exact = st.quantile_test(values, q=theirs, p=nu).confidence_interval(0.95)
    # Normal ranks against exact binomial ones: at most two places apart.
    for mine, end in ((ours["ranks"][0], exact.low), (ours["ranks"][1], exact.high)):
        check.same("quantile: ranks (scipy binomial)", mine, np.searchsorted(values, end) + 1, 0, 2)


def again_and_again(check, rng):
    arms = [[rng.normal(rng.normal(0, 1), 1.5, rng.integers(1, 9)) for _ in range(60)] for _ in range(2)]
    components = {"between": 1.0, "within": 2.25}
    ours = check.ask("longitudinal", control=[lists(u) for u in arms[0]], treatment=[lists(u) for u in arms[1]], components=components)
    units = arms[0] + arms[1]
    blocks = [np.full((len(u), len(u)), components["between"]) + components["within"] * np.eye(len(u)) for u in units]
    import scipy.linalg as la

    y = np.concatenate(units)
    d = np.repeat(np.repeat([0.0, 1.0], 60), [len(u) for u in units])
    fit = sm.GLS(y, sm.add_constant(d), sigma=la.block_diag(*blocks)).fit(cov_type="fixed scale")
    check.same("longitudinal: GLS (statsmodels)", [ours["effect"]["delta"], ours["effect"]["se"]], [fit.params[1], fit.bse[1]], 1e-7)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(400)


def log_mixture(log_ratio, deviation, half=False):
    """Logarithm of the mean likelihood ratio over normal (or half-normal) effects: quadrature where there is any weight."""
    log_density = lambda v: log_ratio(v) - 0.5 * (v / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi)) + math.log(1 + half)
    low, high = (0.0 if half else -15 * deviation), 15 * deviation
    for _ in range(3):
        grid = np.linspace(low, high, 4001)
        values = log_density(grid)
        there = grid[values > values.max() - 45]
        step = grid[1] - grid[0]
        low, high = max(low, there[0] - step), min(high, there[-1] + step)
    values = log_density((high + low) / 2 + (high - low) / 2 * NODES)
    return values.max() + math.log((high - low) / 2 * WEIGHTS @ np.exp(values - values.max()))


def looked_at_always(check, rng):
    n, tuned, alpha = int(rng.integers(200, 50_000)), int(rng.integers(200, 50_000)), float(rng.choice([0.05, 0.025, 0.01]))
    se = float(rng.uniform(0.05, 2))
    effect = {"delta": float(se * rng.uniform(-4, 4)), "se": se}
    ours = check.ask("confidence_sequence", effect=effect, units=n, tuned_units=tuned, alpha=alpha)
    # A bet on each unit's drift, normal around 0 with deviation r (Waudby-Smith et al. 2021): z √n is the sum.
    log_wealth = lambda z, deviation, half=False: log_mixture(lambda v: v * z * math.sqrt(n) - v**2 * n / 2, deviation, half)
    r, r1 = ours["scale"]
    z = effect["delta"] / se
    check.same("confidence sequence: e-value (quadrature)", ours["evidence"]["ln_e"], log_wealth(z, r), 1e-7, 1e-7)
    crossing = scipy.optimize.brentq(lambda z: math.log(alpha) + log_wealth(z, r), 0.5, 60, xtol=1e-11)
    check.same("confidence sequence: where the bet wins (quadrature)", ours["multiplier"][0], crossing, 1e-7)
    check.same(
        "confidence sequence: interval",
        [ours["interval"]["low"], ours["interval"]["high"]],
        [effect["delta"] - crossing * se, effect["delta"] + crossing * se],
        1e-7,
        1e-9,
    )
    # One-sided: a half-normal bet, of which the closed form gives away at most 2 α / √(n r² + 1).
    given_away = alpha * math.exp(log_wealth(ours["multiplier"][1], r1, half=True)) - 1
    most = 2 * alpha / math.sqrt(n * r1**2 + 1)
    check.same("confidence sequence: one-sided (quadrature)", given_away, most / 2, 0, most / 2 + 1e-9)
    # r is such that the band is narrowest at the units tuned for, nearly.
    def width(r):
        nr = tuned * r * r
        return math.sqrt(2 * (nr + 1) * math.log(math.sqrt(nr + 1) / alpha) / nr)

    best = scipy.optimize.minimize_scalar(lambda log_r: width(math.exp(log_r)), bounds=(math.log(r) - 3, math.log(r) + 3), method="bounded")
    check.same("confidence sequence: narrowest (scipy)", width(r), best.fun, 5e-3)

    tau = float(rng.uniform(0.2, 5)) * se
    ours = check.ask("msprt", effect=effect, tau=tau, alpha=alpha)
    log_ratio = lambda delta: log_mixture(lambda v: (delta * v - v * v / 2) / se**2, tau)
    check.same("mSPRT: likelihood ratio (quadrature)", ours["evidence"]["ln_e"], log_ratio(effect["delta"]), 1e-7, 1e-7)
    check.same("mSPRT: p", ours["evidence"]["p"], min(1, math.exp(-log_ratio(effect["delta"]))), 1e-6)
    crossing = scipy.optimize.brentq(lambda z: math.log(alpha) + log_ratio(z * se), 0.5, 60, xtol=1e-11)
    check.same("mSPRT: where it rejects (quadrature)", ours["multiplier"], crossing, 1e-7)


def slates(check, rng):
    """All lists of two out of four items, as often as the logging policy shows them: the mean is the value itself."""
    items = range(4)
    first = {i: w / 16 for i, w in zip(items, (8, 4, 2, 2))}
    then = {(i, j): w / 4 for i in items for j, w in zip([j for j in items if j != i], rng.permutation([2, 1, 1]))}
    target_first = dict(zip(items, rng.dirichlet(np.ones(4))))
    target_then = {(i, j): p for i in items for j, p in zip([j for j in items if j != i], rng.dirichlet(np.ones(3)))}
    pairs = list(then)
    below = lambda head, tail: {j: sum(head[i] * p for (i, k), p in tail.items() if k == j) for j in items}
    logged_below, target_below = below(first, then), below(target_first, target_then)
    own, after, whole = rng.normal(1, 1, (2, 4)), rng.normal(1, 1, (4, 4)), rng.normal(1, 1, (2, 4, 4))
    rewards = {
        # Of the place and the item alone; of the items above, too; of all.
        "independent": lambda i, j: [own[0, i], own[1, j]],
        "cascade": lambda i, j: [own[0, i], after[i, j]],
        "standard": lambda i, j: [whole[0, i, j], whole[1, i, j]],
    }
    for name, reward in rewards.items():
        rows = [
            dict(
                rewards=lists(reward(i, j)),
                logged=[first[i], then[i, j]],
                target=[target_first[i], target_then[i, j]],
                logged_marginal=[first[i], logged_below[j]],
                target_marginal=[target_first[i], target_below[j]],
            )
            for i, j in pairs
            for _ in range(round(64 * first[i] * then[i, j]))
        ]
        assert len(rows) == 64
        truth = sum(target_first[i] * target_then[i, j] * sum(reward(i, j)) for i, j in pairs)
        # What assumes less is right as well.
        for estimator in list(rewards)[list(rewards).index(name) :]:
            ours = check.ask("slates", slates=rows, estimator=estimator)
            check.same(f"slates: {estimator} (all lists)", ours["delta"], truth, 1e-9)
        weight = np.array([np.prod(np.divide(row["target"], row["logged"])) for row in rows])
        total = weight * np.array([sum(row["rewards"]) for row in rows])
        check.same("slates: error (scipy)", check.ask("slates", slates=rows, estimator="standard")["se"], st.sem(total), 1e-9)


def off_policy(check, rng):
    n = 400
    logged = rng.choice([0.2, 0.3, 0.5], n, p=[0.2, 0.3, 0.5])
    # A target that choosing by `logged` supports: weights average 1.
    target = logged * rng.choice([0.5, 1.0, 1.5], n)
    reward = rng.binomial(1, 0.4, n).astype(float)
    rows = [
        dict(logged=float(p), target=float(q), reward=float(r), predicted=0.4, predicted_target=0.4, user=i)
        for i, (p, q, r) in enumerate(zip(logged, target, reward))
    ]
    w = target / logged
    if abs((w.mean() - 1) / (w.std(ddof=1) / math.sqrt(n))) > 2.5:
        return
    one = np.ones(n)
    # Mean of w r; and the weighted mean of r, whose robust (ddof 0) error is SNIPS'.
    ips = sm.OLS(w * reward, one).fit()
    snips = sm.WLS(reward, one, weights=w).fit(cov_type="HC0")
    ours = check.ask("off_policy", rows=rows, estimator="ips")["value"]
    check.same("off-policy: IPS (statsmodels)", [ours["delta"], ours["se"]], [ips.params[0], ips.bse[0]], 1e-8)
    ours = check.ask("off_policy", rows=rows, estimator="snips")["value"]
    check.same("off-policy: SNIPS (statsmodels)", [ours["delta"], ours["se"]], [snips.params[0], snips.bse[0]], 1e-8)
    robust = sm.OLS(0.4 + w * (reward - 0.4), one).fit()
    ours = check.ask("off_policy", rows=rows, estimator="doubly_robust")["value"]
    check.same("off-policy: doubly robust (statsmodels)", [ours["delta"], ours["se"]], [robust.params[0], robust.bse[0]], 1e-8)


def modelled(check, rng):
    n = 300
    logged = rng.choice([0.25, 0.5], n)
    model, averaged = rng.uniform(0, 1, n), rng.uniform(0, 1, n)
    reward = rng.binomial(1, model).astype(float)
    w = rng.choice([0.5, 1.0, 1.5], n)
    rows = [
        dict(logged=float(p), target=float(p * v), reward=float(r), predicted=float(m), predicted_target=float(a), user=i)
        for i, (p, v, r, m, a) in enumerate(zip(logged, w, reward, model, averaged))
    ]
    if abs((w.mean() - 1) / st.sem(w)) > 2.5:
        return
    one = np.ones(n)
    for name, values in (("direct", averaged), ("doubly_robust", averaged + w * (reward - model))):
        fit = sm.OLS(values, one).fit()
        ours = check.ask("off_policy", rows=rows, estimator=name)["value"]
        check.same(f"off-policy with a model: {name} (statsmodels)", [ours["delta"], ours["se"]], [fit.params[0], fit.bse[0]], 1e-8)
    ours = check.ask("off_policy", rows=rows, estimator={"clipped": 1.2})["value"]
    fit = sm.OLS(np.minimum(w, 1.2) * reward, one).fit()
    check.same("off-policy: clipped (statsmodels)", [ours["delta"], ours["se"]], [fit.params[0], fit.bse[0]], 1e-8)
    ours = check.ask("off_policy", rows=rows, estimator={"switch": 1.2})["value"]
    fit = sm.OLS(averaged + np.where(w <= 1.2, w, 0) * (reward - model), one).fit()
    check.same("off-policy: switch (statsmodels)", [ours["delta"], ours["se"]], [fit.params[0], fit.bse[0]], 1e-8)
    shrunk = 2 * w / (w**2 + 2)
    ours = check.ask("off_policy", rows=rows, estimator={"shrunk": 2.0})["value"]
    fit = sm.OLS(averaged + shrunk * (reward - model), one).fit()
    check.same("off-policy: shrunk (statsmodels)", [ours["delta"], ours["se"]], [fit.params[0], fit.bse[0]], 1e-8)
    # How far to shrink: least variance plus squared bias, over the grid that the documentation names.
    low, high = (np.sort(w)[int(share * (n - 1))] for share in (0.05, 0.95))
    grid = np.geomspace(0.01 * low**2, 100 * high**2, 30)
    weights = grid[:, None] * w / (w**2 + grid[:, None])
    spread = st.sem(averaged + weights * (reward - model), axis=1) ** 2
    bias = np.mean((w - weights) * (reward - model), axis=1)
    check.same("off-policy: how far to shrink (brute force)", check.ask("shrinkage", rows=rows), grid[np.argmin(spread + bias**2)], 1e-9)


def distributions(check, rng):
    for _ in range(10):
        z, p = float(rng.uniform(-6, 30)), float(10 ** rng.uniform(-12, -0.01))
        t = [float(rng.uniform(-5, 40)), float(10 ** rng.uniform(0, 5))]
        x = [float(rng.uniform(0.01, 200)), float(rng.integers(1, 60))]
        f = [float(rng.uniform(0.01, 50)), float(rng.integers(1, 20)), float(rng.integers(2, 3000))]
        ours = check.ask("distributions", z=z, t=t, chi_square=x, f=f, p=p)
        # A quantile is held against the survival function: scipy's own far quantiles are good to 1e-5 only.
        for name, tail, (sf, quantile) in (
            ("normal", st.norm.sf, ours["z"]),
            ("Student's t", lambda v: st.t.sf(v, t[1]), ours["t"]),
            ("chi-square", lambda v: st.chi2.sf(v, x[1]), ours["chi_square"]),
            ("F", lambda v: st.f.sf(v, f[1], f[2]), ours["f"]),
        ):
            at = {"normal": z, "Student's t": t[0], "chi-square": x[0], "F": f[0]}[name]
            check.same(f"{name}: survival (scipy)", sf, tail(at), 1e-8, 1e-290)
            check.same(f"{name}: quantile (scipy)", tail(quantile), p, 1e-8)


def main():
    program = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else secrets.randbits(32)
    check, rng = Check(program, seed), np.random.default_rng(seed)
    for _ in range(ROUNDS):
        for compare in (
            means, proportions, ratios, covariates, sequential, sizes, several, segment_effects, new_things, differences,
            encouragement, regressions, archives, ratios_of_samples, interleaved, quantiles, again_and_again, off_policy, modelled, slates,
            looked_at_always, distributions,
        ):  # fmt: skip
            compare(check, rng)
    for what, count in check.done.items():
        print(f"{what:55} {count:5} numbers agree, worst {check.worst[what]:.1e}")
    print(f"{sum(check.done.values())} numbers of {len(check.done)} kinds agree with other libraries, seed {seed}")


main()
