//! What every number means, in plain language.

use std::fmt::Write as _;

use super::esc;

/// The explanations of some terms.
pub(super) fn help(terms: &[&str]) -> String {
    let mut html = String::from("<div class=\"help\">");
    for term in terms {
        let known = TERMS.iter().find(|(name, _)| name == term);
        debug_assert!(known.is_some(), "nothing explains {term}");
        if let Some((_, text)) = known {
            let _ = write!(html, "<p><b>{}.</b> {}</p>", esc(term), esc(text));
        }
    }
    html.push_str("</div>");
    html
}

/// Names as the tables' heads have them, several with one explanation apart by commas.
pub(super) const TERMS: &[(&str, &str)] = &[
    (
        "Metric",
        "What was measured, as the plan declared it. Below it: how it is computed, which way is good, which outcomes of a listener count, and the test.",
    ),
    (
        "Control",
        "The metric in the control arm: what listeners do without the change.",
    ),
    (
        "Effect",
        "The metric in this arm minus the control, in the metric's own unit. Rounded to what its error lets one know. Below it, where the looks allow to stop: the estimate corrected for stopping when it looked good (median-unbiased), with its 95 % interval (stagewise).",
    ),
    (
        "Interval",
        "Effects that the data do not rule out, as wide as this metric's own test asks for at this look. It accounts for peeking and for the number of tests, so it is wider than a textbook 95 % interval. If it lies wholly on the good side of zero, that is evidence of improvement.",
    ),
    (
        "Relative",
        "The effect as a share of the control. Where the control is close to zero the usual formula (delta method) fails and Fieller's interval is the one to read, which may be unbounded; both are shown there.",
    ),
    (
        "z / asks",
        "How many standard errors the effect lies from zero, in the good direction, and how many the test asks for at this look. For a guardrail the test asks how far it lies from the margin.",
    ),
    (
        "p",
        "How often pure chance would give at least this, if the tested claim were false and this were the only look. It is for context: the decision compares z with what is asked, which also pays for peeking. All looks: of an always-valid design, the smallest p so far that holds however often one looks.",
    ),
    (
        "Units",
        "Listeners whose window is over and who count. Those whose window still runs are too young; they will count later.",
    ),
    (
        "Margin",
        "The largest harm that was declared acceptable before the start. Dashed in the plot. A guardrail passes when the interval lies wholly on the better side of it.",
    ),
    (
        "Covariate",
        "What was measured before the experiment explains part of why listeners differ. Taking that out makes the interval narrower, and cannot make an effect.",
    ),
    (
        "Reading",
        "One of a few fixed phrases. No evidence does not mean no effect: it means that these data cannot tell.",
    ),
    (
        "Cumulative effect",
        "The effect with all units complete by that day. The band holds at all days together, so it may be read every day; the effect of a single day is noise. The curve is not adjusted by the covariate and may differ a little from the table.",
    ),
    (
        "Boundary",
        "What each look found (z) and what it asked for. Looking early asks for more, so that looking often does not find what is not there.",
    ),
    (
        "Information",
        "Complete units as a share of those planned. At 100 % the design has spent its whole error budget.",
    ),
    (
        "Novelty",
        "A new thing is often used because it is new. If the effect shrinks with the age of the unit, expect less in the long run than the average so far. Only units old enough for the whole range are compared, so every day has the same listeners. Intervals are 95 %.",
    ),
    (
        "Heterogeneity",
        "The test asks whether the effect is the same in all values of a segment. Look at single values only if it says no. Deviation of effects: how much the true effects differ (tau).",
    ),
    (
        "Segments",
        "Declared before the start to confirm something. Intervals are 95 %, for each value alone; p is corrected for the number of values (Holm), and filled means that it is below 0.05. Segments do not decide.",
    ),
    (
        "Sample ratio",
        "Are the arms as large as they were meant to be? If not, units were lost on a way that depends on the arm, and those left are no fair comparison, however good the numbers look.",
    ),
    (
        "Units in several arms",
        "A listener must see one arm only. Those seen in more are left out; more than a few mean that assignment is broken.",
    ),
    (
        "Bots",
        "Automated traffic, by a rule that was fixed before any effect was seen and is the same for all arms. The arms must not differ in it.",
    ),
    (
        "Balance",
        "What was measured before the experiment must agree between the arms, since the change cannot have caused it.",
    ),
    (
        "Sameness",
        "A metric of role quality: no arm can change it, so the arms must agree in it. If they do not, the data are wrong and no effect is shown.",
    ),
    (
        "A/A reference",
        "The control against itself, in two halves that a hash deals out. Nothing can differ between them, so a small p says that the noise is larger than the errors in this report.",
    ),
    (
        "Lost exposures",
        "Rows that the log's writers had to drop. Loss that depends on the arm biases everything.",
    ),
    (
        "Requests",
        "Distinct answers that were served, retries counted once.",
    ),
    (
        "Latency 50 %, 95 %, 99 %",
        "Half, 95 and 99 of 100 answers were faster than this. Read from a histogram whose cells are 0.02 % wide.",
    ),
    (
        "Errors",
        "Share of an arm's requests that failed by the server's fault. They leave no exposure, so metrics do not know of them; the server counts them beside the log. The monitored rollout stops on them.",
    ),
    (
        "Empty, Degraded",
        "Share of answers without an item, and of answers that a fallback gave.",
    ),
    (
        "Served otherwise",
        "Share of answers in which something other than the assigned arm was served. It dilutes the effect: units are compared as assigned.",
    ),
    (
        "Effect that matters",
        "The smallest effect that would change the decision, as declared before the start.",
    ),
    (
        "Effect it can see",
        "The effect that this many units would find with the planned power at this look's bound.",
    ),
    (
        "Power",
        "Chance to find the effect that matters, if it is there, with these units. Low power and no evidence together mean: unknown.",
    ),
    (
        "Unit",
        "What is randomised: a listener. A unit is counted in the arm of its first exposure, whatever happens later.",
    ),
    (
        "Arm",
        "One of the rankings compared. The first is the control.",
    ),
    (
        "Epoch",
        "A change of arms or weights starts a new epoch with newly dealt units. Epochs are never analysed together.",
    ),
    (
        "Look",
        "One analysis of a running experiment. Each look of a group-sequential design spends part of one error budget.",
    ),
    (
        "Design words",
        "Group-sequential: looks share a budget, the end is planned. Always-valid: look at any time, for ever, with wider intervals. Fixed sample: one look at the end. Fixed power: effects hidden until precise enough.",
    ),
    (
        "No evidence",
        "The data are compatible with no effect, and with effects inside the interval.",
    ),
    (
        "Recommendation",
        "Ship if a success metric improves, every guardrail with a margin stays within it, nothing is harmed and no check failed. The owner decides.",
    ),
    (
        "Preference",
        "Share of lists won by the second arm, ties counted half, minus one half: 0 is no preference. The sign test takes lists as independent, which those of one listener are not: the table of metrics counts listeners and decides.",
    ),
    (
        "Fair draft",
        "A coin decides which arm picks first. What stands higher is chosen more, so arms that pick first unequally often would not be compared fairly.",
    ),
    (
        "Uptake",
        "Share of those assigned to each arm who got what the treatment offers. Answers may fall back, and an offer may be ignored.",
    ),
    (
        "On those moved",
        "The effect as assigned, divided by the difference in uptake: the effect on listeners who took it up because they were assigned to it, not on everybody. It holds only if the assignment works through nothing else.",
    ),
    (
        "Safe interval",
        "95 % interval by Anderson and Rubin: right also where the assignment moved few. It may have no end, which means that the data do not tell.",
    ),
    (
        "F",
        "How clearly the assignment moved uptake. Below 10 the estimate beside it is not to be trusted, only the safe interval.",
    ),
    (
        "Estimator",
        "IPS weighs each answer by how much likelier the other policy would give it. Clipped IPS cuts weights at the root of the number of answers: steadier, and too small for rewards above 0. SNIPS makes the weights average 1, which is steadier. DM believes a model alone. DR corrects the model by what happened, and is right if either is; SNDR does so with weights that average 1; switch DR believes the model where the weight is above that root. Cascade takes an item's reward not to depend on the items below it.",
    ),
    (
        "Effective answers",
        "As many answers given by the other policy itself would tell as much. A small part of all means that the policies differ too much for the log to say.",
    ),
    (
        "Mean weight",
        "1 if the logged probabilities are true and the log tried all that the policy would do; where it is not, nothing is estimated.",
    ),
    (
        "Overlap",
        "Share of the control's items that the other list has, too, in whatever order.",
    ),
    (
        "RBO",
        "Rank-biased overlap: agreement of two lists in which each place counts nine tenths of the one above. 1 is the same list, 0 none in common.",
    ),
    ("Coverage", "Share of all shown items that this arm shows."),
    (
        "Gini",
        "How unequally places are spread over all shown items: 0 all alike, close to 1 a few items have them all.",
    ),
    (
        "Shown more, Shown less",
        "Share of all places in lists that an item holds in either arm: the largest changes.",
    ),
    (
        "Parallel trends",
        "The effect is by how much the treated units moved more than the untreated. That is the effect of the change only if both would have moved alike without it. The time before can speak against that, and cannot prove it.",
    ),
    (
        "Permutation",
        "How often other units, taken as the treated ones, would have shown at least this. Right with few units, but then it cannot give a small p.",
    ),
    (
        "Clustered",
        "Periods of one unit resemble each other. Counting them as independent makes the error far too small; clustering counts units.",
    ),
    (
        "Correlation",
        "How close the dots lie to a line: 1 is a rising line, 0 is none. With its 95 % interval, and how often chance alone would give as much.",
    ),
    (
        "Ranks",
        "The same of the order only (Spearman's and Kendall's): one extreme experiment cannot make it.",
    ),
    (
        "Without noise",
        "Online effects are measured with error, which weakens every correlation. What it would be without that error, at most 1.",
    ),
    (
        "Slope",
        "Effect online for a change of 1 offline. Use it to judge whether an offline gain is worth an experiment.",
    ),
    (
        "Same sign",
        "Share of experiments in which both went the same way. A coin gives half.",
    ),
    (
        "Prediction error",
        "How far off each experiment is when the others predict it by the line, and by their mean alone. A line that does not beat the mean foretells nothing.",
    ),
    (
        "Deviation",
        "How much single listeners differ (standard deviation). The more they do, the more of them it takes.",
    ),
    (
        "To detect",
        "The smallest effect that matters, or for a guardrail the margin that must be ruled out, as declared.",
    ),
    (
        "Looks cost",
        "By how much looking early makes the experiment larger, at the same risks.",
    ),
    (
        "Sees",
        "What all units of the experiment would detect of this metric, with the planned power. Metrics that are not the hungriest see more than they must.",
    ),
    (
        "Nominal α",
        "The p-value that this look's bound stands for: what a single p must be below here.",
    ),
    (
        "Spent α",
        "Of a group-sequential design: how much of the level of this metric's test all looks so far have used up, this one included. At 100 % of the information all is spent.",
    ),
    (
        "Day 1, Week 1, Week 2",
        "The effect a day on a unit's first day, in its first and in its second week, with its 95 % error.",
    ),
    (
        "Week 2 − week 1",
        "By how much the effect a day changed, unit by unit: only units that have lived through both weeks.",
    ),
    (
        "Explored",
        "Not declared before the start. Effects are drawn towards the average of all values as far as their noise suggests, and p is corrected as a false discovery rate (Benjamini, Hochberg): they show where to look next.",
    ),
    (
        "Segment",
        "The column of the log by which arms would be given.",
    ),
    (
        "Who gets what",
        "The arm that was best in each value, by the half of the units that chose. Values with too few units get the arm that is best for all.",
    ),
    (
        "Chosen, One arm",
        "The metric if everybody got the arm of their value, and if everybody got the best single arm: both by the half of the units that did not choose, so choosing does not flatter it.",
    ),
    (
        "Gain",
        "Chosen less one arm, with its 95 % interval for a single look.",
    ),
    (
        "Check, Result, Finding",
        "What was asked of the data, whether it is as it must be, and what was found. A failed check hides every effect.",
    ),
    (
        "Power for what matters",
        "Chance to find the effect that matters, if it is there, with these units at this look's bound. Low power and no evidence together mean: unknown.",
    ),
    (
        "About, Rule, Applied",
        "What is left out or bounded, by which rule, and how often that happened.",
    ),
    ("Lists", "Lists that count."),
    (
        "Won by, Neither",
        "Lists in which more was chosen of one arm's items than of the other's, or as much of both.",
    ),
    (
        "Sign test p",
        "How often a fair coin would split the lists that were won as unevenly. Lists of one listener are not independent: for display.",
    ),
    (
        "Changes",
        "What the plan says that the arm differs in: its ranking variant, and the parameters that it sets.",
    ),
    (
        "Served as",
        "The ranking variants that answered, by the log. A variant with parameters of an arm has them in its name.",
    ),
    (
        "Index versions",
        "The builds that answered, by the log and not by the plan.",
    ),
    ("Share", "Of the experiment's units, as planned."),
    (
        "Vital signs",
        "Owner, description, freshness and access of this report. Low: one that every report must have is missing, or the data are older than twice the cadence. Golden: none is missing.",
    ),
    (
        "Cost of a request",
        "Mean time that an answer took, and its change against the control: answers are computed on one core, so this is what a request costs. Described, not tested; a metric of type ratio, exposure.latency_us over exposure.count, tests it.",
    ),
    (
        "Built, Age",
        "When the index of an arm was built, and how old it was when a unit first met it, on average.",
    ),
    (
        "Older by",
        "Days that the arm's index is older than the control's.",
    ),
    (
        "For a day of age",
        "Change of the metric with each day, by a line through all arms, without covariates.",
    ),
    (
        "As assigned",
        "The effect of being assigned, whether or not the unit got what it was assigned.",
    ),
    ("An answer", "Mean reward of one answer."),
    (
        "95 % interval",
        "Values that the log does not rule out, by drawing listeners again and again.",
    ),
    (
        "Length, Items",
        "Mean length of a list, and how many distinct items the arm showed.",
    ),
    (
        "Time, Failed, Dropped",
        "How long the list in the dark took as a multiple of the served one, and how many failed.",
    ),
    (
        "Test",
        "Superiority for a success metric; non-inferiority, from its margin, for a guardrail.",
    ),
    ("Baseline", "The metric without the change."),
    (
        "Level",
        "One-sided level of the metric's own test, and below it its power.",
    ),
    ("Needs", "Units of all arms that this metric needs."),
    (
        "Experiments",
        "Archived experiments that have both numbers.",
    ),
    (
        "Weighted",
        "Correlation in which precise experiments count more.",
    ),
    (
        "Method",
        "How the error of the same effect is found. The one that decides is named.",
    ),
    (
        "Error",
        "Standard error: how far estimates like this usually lie from the truth.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Heads of all tables, as the pages' sources have them.
    fn heads() -> Vec<&'static str> {
        let sources = [
            include_str!("mod.rs"),
            include_str!("context.rs"),
            include_str!("size.rs"),
            include_str!("past.rs"),
            include_str!("panel.rs"),
        ];
        let cells = sources
            .iter()
            .flat_map(|source| source.split("<th").skip(1));
        cells
            // Not a `<thead>`.
            .filter(|cell| cell.starts_with(['>', ' ']))
            .filter_map(|cell| cell.split_once('>')?.1.split_once("</th>"))
            .map(|(head, _)| head)
            .collect()
    }

    #[test]
    fn every_head_of_a_table_is_explained() {
        let heads = heads();
        assert!(heads.len() > 60, "{heads:?}");
        let known: Vec<&str> = TERMS
            .iter()
            .flat_map(|(name, _)| name.split(", "))
            .collect();
        for head in heads {
            // An arm's name stands where the braces do.
            let head = head.replace("{title}", "Shown more").replace("{}", "");
            let head = head.trim();
            assert!(
                head.is_empty() || known.contains(&head),
                "nothing explains `{head}`"
            );
        }
        let mut names: Vec<&str> = TERMS.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), TERMS.len(), "explained twice");
    }
}
