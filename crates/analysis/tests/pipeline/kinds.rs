//! Kinds of experiments and turns of the tool that an A/B experiment of two arms does not take.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{BinaryArray, StringArray};
use parquet::file::metadata::KeyValue;
use refrain_analysis::simulate::{self, START_US, World};
use refrain_analysis::verdict::Input;
use refrain_analysis::verdict::document::Status;
use refrain_analysis::{Analysis, Look, Looks, Options, Plan, report};

use crate::support::{
    Case, GST, and_column, check, ids, rewrite, rewrite_with, table, with_column,
};

const DAY_US: i64 = 86_400_000_000;

/// The simulated experiment as a kind that claims no success: minutes are a guardrail.
fn guarded(world: &World, kind: &str) -> Case {
    let mut case = Case::new(world, GST);
    let text = simulate::plan_toml(world, GST)
        .replace("kind = \"ab\"", &format!("kind = \"{kind}\""))
        .replace("role = \"success\"", "role = \"guardrail\"")
        .replace("mde_rel = 0.05", "margin_rel = 0.2");
    case.plan = Plan::from_toml(&text, None).expect("valid plan");
    case
}

#[test]
fn a_rollout_advances_or_stops_and_names_no_winner() {
    let analysis = guarded(&World::new(21, 4_000), "rollout").analyze();
    let verdict = &analysis.verdict;
    assert_eq!(verdict.recommendation, "ADVANCE", "{verdict:?}");
    assert!(verdict.headline.contains("go on to the next step"));
    assert!(verdict.arms[0].improved.is_empty());
    assert_eq!(
        verdict.arms[0].within_margin,
        ["minutes_week1", "saved", "latency_p95"]
    );
    let document = serde_json::to_string(&analysis).expect("JSON");
    let page = report::html(&analysis, "refrain experiment report");
    for text in [&document, &page] {
        assert!(!text.contains("winner") && !text.contains("SHIP"));
    }
    // The glossary has the words.
    assert!(!document.contains("evidence of improvement"));
    assert!(!page.contains("✓ evidence of improvement"));
    assert!(page.contains("monitored rollout: guardrails only, no claim of success"));

    // Better is no claim either.
    let mut better = World::new(22, 4_000);
    better.lift = 0.3;
    let analysis = guarded(&better, "rollout").analyze();
    assert_eq!(analysis.verdict.recommendation, "ADVANCE");
    assert!(analysis.verdict.arms[0].improved.is_empty());

    let mut slow = World::new(23, 4_000);
    slow.slowdown = 0.3;
    let analysis = guarded(&slow, "rollout").analyze();
    assert_eq!(analysis.verdict.recommendation, "STOP_HARM");
    assert_eq!(analysis.verdict.arms[0].harmed, ["latency_p95"]);
}

/// Units held out of everything against the slice of the rest, from rows of any experiment and of none.
#[test]
fn a_holdout_says_what_the_quarter_was_worth() {
    let mut world = World::new(24, 4_000);
    world.holdout = Some("2026 q4".to_owned());
    world.lift = 0.2;
    world.faults.retries = 0.02;
    let case = Case::new(&world, GST);
    let analysis = case.analyze();
    assert_eq!(
        analysis.verdict.recommendation,
        "SHIP",
        "{:?}",
        ids(&analysis)
    );
    assert!(
        analysis
            .verdict
            .headline
            .contains("what was shipped beside this holdout improves minutes_week1"),
        "{}",
        analysis.verdict.headline
    );
    let minutes = &analysis.metrics[0].comparisons[0];
    assert_eq!(
        (minutes.arm.as_str(), minutes.outcome),
        ("slice", "improvement")
    );
    let lift = minutes.relative.as_ref().expect("away from 0").lift;
    let se = minutes.se / analysis.metrics[0].arms[0].value.expect("shown");
    assert!((lift - 0.2).abs() < 4.0 * se, "{lift} {se}");
    // The sides are as the log has them, and no experiment's weights part them.
    assert_eq!(analysis.observed.units.iter().sum::<u64>(), 4_000);
    assert!(analysis.observed.periods.is_empty());
    assert_eq!(check(&analysis, "srm").status, Status::Pass);
    assert_eq!(check(&analysis, "served").status, Status::Pass);
    // The same world as an experiment has the same numbers.
    let mut plain = world.clone();
    plain.holdout = None;
    let plain = Case::new(&plain, GST).analyze();
    assert_eq!(minutes.delta, plain.metrics[0].comparisons[0].delta);
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("<dt>Kind</dt><dd>holdout 2026 q4: units that no experiment touches"));
    assert!(page.contains("whatever was shipped") && !page.contains("winner"));

    // A unit that another holdout holds is on neither side; a held one that an experiment served is told.
    let touched = Case::new(&world, GST);
    rewrite(&table(&touched, "exposures"), |_, batch| {
        let text = |name: &str| {
            let column = batch.column_by_name(name).expect("there");
            column.as_string::<i32>().clone()
        };
        let (units, sides) = (text("unit_id"), text("holdouts"));
        let of = |row: usize| units.value(row).as_bytes().last().copied().unwrap_or(0);
        let sides = (0..batch.num_rows()).map(|row| match of(row) {
            b'0' => format!("2026 q3|9|held||{}", sides.value(row)),
            b'1' => format!("2026 q3|9|slice||{}", sides.value(row)),
            b'2' => sides.value(row).replace("|1|", "|2|"),
            _ => sides.value(row).to_owned(),
        });
        let sides = Arc::new(StringArray::from_iter_values(sides));
        let served = (0..batch.num_rows()).map(|row| match of(row) {
            b'3' | b'4' => "meanwhile",
            _ => "",
        });
        let served = Arc::new(StringArray::from_iter_values(served));
        with_column(
            &with_column(&batch, "holdouts", sides),
            "experiment",
            served,
        )
    });
    let analysis = touched.analyze();
    let Input::Log { rows, .. } = &analysis.data.input else {
        panic!("{:?}", analysis.data.input)
    };
    assert!(rows.held_elsewhere > 0 && rows.other_epochs > 0, "{rows:?}");
    assert_eq!(analysis.observed.units.iter().sum::<u64>(), 3_200);
    let found = check(&analysis, "served");
    assert_eq!(found.status, Status::Warn, "{}", found.finding);
    assert!(found.finding.contains("slice 0.00 %"), "{}", found.finding);

    // Nothing shipped, nothing seen: and never that there is no effect.
    world.lift = 0.0;
    let nothing = Case::new(&world, GST).analyze();
    assert_eq!(nothing.verdict.recommendation, "NO_SHIP");
    assert!(
        nothing
            .verdict
            .headline
            .starts_with("No evidence that what was shipped")
    );
    world.lift = -0.3;
    let harm = Case::new(&world, GST).analyze();
    assert_eq!(harm.verdict.recommendation, "STOP_HARM");
    assert!(
        harm.verdict
            .headline
            .starts_with("What was shipped beside this holdout makes")
    );
}

#[test]
fn a_holdout_that_the_log_does_not_have_is_named() {
    let mut world = World::new(24, 200);
    let plain = Case::new(&world, GST);
    world.holdout = Some("q1".to_owned());
    let mut case = Case::new(&world, GST);
    let error = |case: &Case| {
        let options = Options::default();
        refrain_analysis::from_log(case.folder.path(), &case.plan, &options, &|_, _| ())
            .expect_err("refused")
            .to_string()
    };
    case.plan.epoch = 3;
    let text = error(&case);
    assert!(
        text.contains("no exposure of holdout `q1`, epoch 3") && text.contains("`q1` epoch 1"),
        "{text}"
    );
    let mut plain = plain;
    plain.plan = case.plan.clone();
    let text = error(&plain);
    assert!(text.contains("column `holdouts` is missing"), "{text}");
    let toml = simulate::plan_toml(&world, GST);
    for (from, to, says) in [
        (
            "epoch = 1\n",
            "epoch = 1\narm = [{ name = \"held\" }, { name = \"slice\" }]\n",
            "a holdout has two of its own",
        ),
        (
            "kind = \"holdout\"",
            "kind = \"ab\"",
            "belongs to kind = \"holdout\"",
        ),
        (
            "role = \"success\"",
            "role = \"scan\"",
            "what was shipped is to be worth",
        ),
    ] {
        let text = Plan::from_toml(&toml.replacen(from, to, 1), None)
            .expect_err("refused")
            .to_string();
        assert!(text.contains(says), "{text}");
    }
}

/// What an arm changes stands in the plan, what it was served in the log; the report has both.
#[test]
fn arms_are_told_as_declared_and_as_served() {
    let world = World::new(33, 400);
    let mut case = Case::new(&world, GST);
    let text = simulate::plan_toml(&world, GST).replace(
        "name = \"blend03\"\n",
        "name = \"blend03\"\nvariant = \"balanced\"\nparams = { alpha = 0.3, \"mmr.on\" = true }\n",
    );
    case.plan = Plan::from_toml(
        &format!("[assignment]\njournal = \"a/j.jsonl\"\n{text}"),
        None,
    )
    .expect("valid plan");
    rewrite(&table(&case, "exposures"), |group, batch| {
        let arms = batch.column_by_name("variant").expect("there");
        let arms = arms.as_string::<i32>().clone();
        let ranked = arms.iter().map(|arm| match arm {
            Some("blend03") => "balanced|alpha=0.3",
            _ => "plain",
        });
        let ranked = StringArray::from_iter_values(ranked);
        let indexes = arms.iter().map(|arm| match (arm, group) {
            (Some("blend03"), 0) => "v13",
            _ => "v12",
        });
        let indexes = Arc::new(StringArray::from_iter_values(indexes));
        let batch = with_column(&batch, "index_version", indexes);
        and_column(&batch, "ranking_variant", Arc::new(ranked))
    });
    let analysis = case.analyze();
    let document = serde_json::to_value(&analysis).expect("JSON");
    let arm = &document["plan"]["arms"][1];
    assert_eq!(arm["variant"], "balanced");
    assert_eq!(arm["params"]["alpha"], 0.3);
    assert_eq!(arm["params"]["mmr.on"], true);
    assert_eq!(document["plan"]["journal"], "a/j.jsonl");
    let served = &document["observed"]["arms"];
    assert_eq!(served[0]["ranking_variants"], serde_json::json!(["plain"]));
    assert_eq!(
        served[1]["ranking_variants"],
        serde_json::json!(["balanced|alpha=0.3"])
    );
    assert_eq!(served[0]["index_versions"], serde_json::json!(["v12"]));
    assert_eq!(
        served[1]["index_versions"],
        serde_json::json!(["v12", "v13"])
    );
    let page = report::html(&analysis, "");
    for text in [
        "balanced, alpha = 0.3, mmr.on = true</td><td>balanced|alpha=0.3</td><td>v12, v13</td>",
        "<td><b>control</b></td><td>not stated</td><td>plain</td><td>v12</td>",
        "<dt>Journal</dt><dd><a href=\"a/j.jsonl\">a/j.jsonl</a></dd>",
    ] {
        assert!(page.contains(text), "{text}");
    }
}

#[test]
fn a_report_says_whether_it_can_be_relied_on() {
    let world = World::new(34, 300);
    let mut case = Case::new(&world, GST);
    let label = |case: &Case, now_us: Option<i64>| {
        let options = Options {
            now_us,
            ..Options::default()
        };
        let analysis = case.look(&options).0;
        let page = report::html(&analysis, "");
        let told = format!("<dt>Vital signs</dt><dd><b>{}</b>", analysis.vitals.label);
        assert!(page.contains(&told), "{told}");
        analysis.vitals.label
    };
    // Owner, question, decision; nobody said how often or for whom.
    assert_eq!(label(&case, None), "high");
    case.plan.cadence = Some(DAY_US);
    case.plan.access = "team-home".to_owned();
    let cutoff = case.analyze().observed.cutoff_us;
    assert_eq!(label(&case, Some(cutoff + 2 * DAY_US)), "golden");
    assert_eq!(
        label(&case, Some(cutoff + 2 * DAY_US + 1)),
        "low",
        "older than twice"
    );
    assert_eq!(label(&case, None), "high");
    case.plan.owner = " ".to_owned();
    assert_eq!(label(&case, Some(cutoff)), "low");
}

/// Three arms with builds of different age, where listening falls by 2 % a day of age.
#[test]
fn the_age_of_an_index_has_its_effect() {
    let mut world = World::new(35, 6_000);
    world.arms = ["fresh", "days3", "days7"]
        .map(|name| (name.to_owned(), 1.0 / 3.0))
        .into();
    let case = Case::new(&world, r#"{ method = "gst", max_units = 6000 }"#);
    let index = |arm: &str| match arm {
        "fresh" => "v20260104T000000Z-aaaa0001",
        "days3" => "v20260101T000000Z-aaaa0002",
        _ => "v20251228T000000Z-aaaa0003",
    };
    let mut arms = std::collections::BTreeMap::new();
    let mut firsts = std::collections::BTreeMap::new();
    rewrite(&table(&case, "exposures"), |_, batch| {
        let column = |name: &str| batch.column_by_name(name).expect("there").clone();
        let (units, named, times) = (column("unit_id"), column("variant"), column("ts"));
        let (units, named) = (units.as_string::<i32>(), named.as_string::<i32>());
        let times = times.as_primitive::<arrow_array::types::TimestampMicrosecondType>();
        for row in 0..batch.num_rows() {
            let unit = units.value(row).to_owned();
            let first = firsts.entry(unit.clone()).or_insert(i64::MAX);
            *first = times.value(row).min(*first);
            arms.insert(unit, named.value(row).to_owned());
        }
        let versions = named.iter().map(|arm| index(arm.unwrap_or_default()));
        with_column(
            &batch,
            "index_version",
            Arc::new(StringArray::from_iter_values(versions)),
        )
    });
    let older = |arm: &str| match arm {
        "fresh" => 0.0,
        "days3" => 3.0,
        _ => 7.0,
    };
    rewrite(&table(&case, "outcomes"), |_, batch| {
        let column = |name: &str| batch.column_by_name(name).expect("there").clone();
        let (units, values) = (column("unit_id"), column("value"));
        let values = values.as_primitive::<arrow_array::types::Float64Type>();
        let changed = units.as_string::<i32>().iter().zip(values.values());
        let changed = changed.map(|(unit, value)| {
            let arm = &arms[unit.expect("there")];
            value * (1.0 - 0.02 * older(arm))
        });
        let changed = arrow_array::Float64Array::from_iter_values(changed);
        with_column(&batch, "value", Arc::new(changed))
    });
    let analysis = case.analyze();
    // A version that one arm alone has is no mismatch: it is the arm.
    let found = check(&analysis, "srm_segments");
    assert_eq!(found.status, Status::Pass, "{}", found.finding);
    assert!(
        found.finding.starts_with("of 3 segments"),
        "{}",
        found.finding
    );
    let study = analysis.staleness.as_ref().expect("builds of their own");
    let mean_first = |of: &str| {
        let of: Vec<i64> = firsts
            .iter()
            .filter(|(unit, _)| arms[*unit] == of)
            .map(|(_, first)| *first)
            .collect();
        of.iter().map(|us| (us - START_US) as f64).sum::<f64>() / of.len() as f64 / DAY_US as f64
    };
    for (arm, (name, built)) in
        study
            .arms
            .iter()
            .zip([("fresh", 1.0), ("days3", 4.0), ("days7", 8.0)])
    {
        assert_eq!(arm.arm, name);
        // Built so many days before the start.
        let truth = built + mean_first(name);
        assert!((arm.age_days - truth).abs() < 1e-6, "{arm:?}, {truth}");
    }
    assert_eq!(study.arms[0].built, "2026-01-04 00:00:00 UTC");
    let minutes = &study.metrics[0];
    assert_eq!(minutes.metric, "minutes_week1");
    // The line through three points by hand, weights as their errors say.
    let values: Vec<(f64, f64, f64)> = study
        .arms
        .iter()
        .zip(&analysis.metrics[0].arms)
        .map(|(arm, of)| {
            let se = of.se.expect("shown");
            (arm.age_days, of.value.expect("shown"), 1.0 / (se * se))
        })
        .collect();
    let total: f64 = values.iter().map(|v| v.2).sum();
    let mean = |of: &dyn Fn(&(f64, f64, f64)) -> f64| {
        values.iter().map(|v| v.2 * of(v)).sum::<f64>() / total
    };
    let (x, y) = (mean(&|v| v.0), mean(&|v| v.1));
    let sxx: f64 = values.iter().map(|v| v.2 * (v.0 - x) * (v.0 - x)).sum();
    let sxy: f64 = values.iter().map(|v| v.2 * (v.0 - x) * (v.1 - y)).sum();
    let slope = minutes.per_day.expect("a line");
    assert!((slope.delta - sxy / sxx).abs() < 1e-9, "{slope:?}");
    assert!((slope.se - (1.0 / sxx).sqrt()).abs() < 1e-9, "{slope:?}");
    let truth = -0.02 * analysis.metrics[0].arms[0].value.expect("shown");
    assert!(
        (slope.delta - truth).abs() < 4.0 * slope.se,
        "{slope:?}, {truth}"
    );
    assert!(slope.delta < -2.0 * slope.se, "{slope:?}");
    let apart = [minutes.effects[0].older_days, minutes.effects[1].older_days];
    assert!(
        (apart[0] - 3.0).abs() < 0.5 && (apart[1] - 7.0).abs() < 0.5,
        "{apart:?}"
    );
    let page = report::html(&analysis, "");
    assert!(page.contains("Does it get stale?") && page.contains("For a day of age"));

    // One build for all is no study; a plan may say what an id does not.
    let mut plain = Case::new(&world, r#"{ method = "gst", max_units = 6000 }"#);
    assert!(plain.analyze().staleness.is_none());
    for (arm, days) in plain.plan.arms.iter_mut().zip([1, 4, 8]) {
        arm.built_us = Some(START_US - days * DAY_US);
    }
    let declared = plain.analyze().staleness.expect("declared");
    assert!((declared.arms[2].age_days - study.arms[2].age_days).abs() < 1e-6);
    let text = simulate::plan_toml(&world, GST).replacen(
        "name = \"days3\"\n",
        "name = \"days3\"\nbuilt = \"2026-01-01T12:00:00Z\"\n",
        1,
    );
    let plan = Plan::from_toml(&text, None).expect("valid");
    assert_eq!(
        plan.arms[1].built_us,
        Some(START_US - 4 * DAY_US + DAY_US / 2)
    );
    let error = Plan::from_toml(&text.replace("01-01T12", "01-32T12"), None).expect_err("no day");
    assert!(
        error
            .to_string()
            .contains("arm[1].built: `2026-01-32T12:00:00Z` is neither")
    );
}

#[test]
fn a_request_has_its_cost_against_the_control() {
    let mut world = World::new(36, 1_500);
    world.slowdown = 0.3;
    world.faults.retries = 0.0;
    let case = Case::new(&world, GST);
    let mut sums = std::collections::BTreeMap::<String, (f64, f64)>::new();
    rewrite(&table(&case, "exposures"), |_, batch| {
        let column = |name: &str| batch.column_by_name(name).expect("there").clone();
        let (arms, times) = (column("variant"), column("latency_us"));
        let times = times.as_primitive::<arrow_array::types::UInt32Type>();
        for (arm, us) in arms.as_string::<i32>().iter().zip(times.values()) {
            let sum = sums.entry(arm.expect("there").to_owned()).or_default();
            *sum = (sum.0 + 1.0, sum.1 + f64::from(*us));
        }
        batch
    });
    let analysis = case.analyze();
    let mean = |arm: &str| sums[arm].1 / sums[arm].0 / 1000.0;
    for arm in &analysis.operation {
        let cost = arm.cost_ms.expect("shown");
        assert!((cost - mean(&arm.arm)).abs() < 1e-9, "{arm:?}");
        let ratio = arm.cost_ratio.expect("shown");
        assert!(
            (ratio - mean(&arm.arm) / mean("control")).abs() < 1e-9,
            "{arm:?}"
        );
    }
    let ratio = analysis.operation[1].cost_ratio.expect("shown");
    assert!((ratio - 1.3).abs() < 0.05, "{ratio}");
    let page = report::html(&analysis, "");
    assert!(page.contains("Cost of a request") && page.contains("% of control</small>"));
    // What is hidden is hidden here, too.
    world.faults.lose_treatment = 0.9;
    let invalid = Case::new(&world, GST).analyze();
    assert!(
        invalid
            .operation
            .iter()
            .all(|arm| arm.cost_ms.is_none() && arm.cost_ratio.is_none())
    );
}

#[test]
fn a_shadow_has_no_verdict_and_says_why() {
    let world = World::new(25, 10);
    let text = simulate::plan_toml(&world, GST).replace("kind = \"ab\"", "kind = \"shadow\"");
    // With one arm, too, as the server takes it.
    let arm = text.find("[[experiment.blend.arm]]").expect("an arm");
    let second = text[arm + 1..].find("[[").expect("another") + arm + 1;
    let one = [&text[..arm], &text[second..]].concat();
    for text in [text, one] {
        let error = Plan::from_toml(&text, None)
            .expect_err("refused")
            .to_string();
        assert!(
            error.contains("experiment `blend` is of kind \"shadow\"")
                && error.contains("section Lists of the report on an `ab` experiment"),
            "{error}"
        );
    }
}

#[test]
fn each_treatment_is_judged_at_its_share_of_the_level() {
    let mut world = World::new(26, 9_000);
    world.arms = ["control", "blend03", "blend06"]
        .map(|name| (name.to_owned(), 1.0 / 3.0))
        .into();
    world.lift = 0.2;
    let analysis = Case::new(&world, r#"{ method = "gst", max_units = 9000 }"#).analyze();
    let verdict = &analysis.verdict;
    assert_eq!(check(&analysis, "srm").status, Status::Pass);
    assert_eq!(verdict.recommendation, "SHIP", "{verdict:?}");
    let words: Vec<(&str, &str)> = verdict
        .arms
        .iter()
        .map(|arm| (arm.arm.as_str(), arm.recommendation))
        .collect();
    assert_eq!(words, [("blend03", "SHIP"), ("blend06", "NO_SHIP")]);
    let minutes = &analysis.metrics[0];
    let truth = 0.2 * minutes.arms[0].value.expect("shown");
    for (comparison, truth) in minutes.comparisons.iter().zip([truth, 0.0]) {
        assert!(
            (comparison.delta - truth).abs() < 4.0 * comparison.se,
            "{comparison:?}, {truth}"
        );
        let arm = minutes.arms.iter().find(|arm| arm.arm == comparison.arm);
        assert!(arm.is_some_and(|arm| arm.units > 2_900), "{arm:?}");
    }
    assert!(
        verdict.assumptions[0].contains("2.50 % a success metric"),
        "{:?}",
        verdict.assumptions
    );
    // A lone treatment asks for less.
    let mut two = World::new(26, 9_000);
    two.lift = 0.2;
    let two = Case::new(&two, r#"{ method = "gst", max_units = 9000 }"#).analyze();
    let bound = |analysis: &Analysis| analysis.metrics[0].comparisons[0].bound.expect("judged");
    assert!(bound(&two) < bound(&analysis));
    let page = report::html(&analysis, "refrain experiment report");
    assert!(page.contains("minutes_week1 · blend03") && page.contains("minutes_week1 · blend06"));
}

#[test]
fn what_may_still_arrive_is_waited_for() {
    let mut case = Case::new(&World::new(27, 1_500), GST);
    let at = |case: &Case, day: i64| {
        let mut options = Options::default();
        options.read.until_us = Some(START_US + day * DAY_US);
        case.look(&options).0
    };
    let units = |analysis: &Analysis| -> [u64; 2] {
        let arms = &analysis.metrics[0].arms;
        [
            arms.iter().map(|arm| arm.units).sum(),
            arms.iter().map(|arm| arm.immature).sum(),
        ]
    };
    let without = at(&case, 13);
    let later = at(&case, 17);
    case.plan.policy.settle = 4 * DAY_US;
    let waited = at(&case, 17);
    // Four days later, the same units are complete, with the same values to the bit.
    assert_eq!(units(&waited)[0], units(&without)[0]);
    assert!(units(&waited)[1] > units(&without)[1]);
    assert!(units(&later)[0] > units(&waited)[0]);
    let values = |analysis: &Analysis| -> Vec<Option<f64>> {
        analysis.metrics[0]
            .arms
            .iter()
            .map(|arm| arm.value)
            .collect()
    };
    assert_eq!(values(&waited), values(&without));
    let policy = waited
        .data
        .policies
        .iter()
        .find(|policy| policy.about == "late data")
        .expect("stated");
    assert!(
        policy.rule.starts_with("a unit is complete 4 d after"),
        "{}",
        policy.rule
    );
    assert!(report::html(&waited, "").contains("A unit is complete 4 d after"));
}

#[test]
fn rows_that_one_arm_lost_are_named() {
    let told = |control: u32, treatment: u32| {
        let case = Case::new(&World::new(28, 1_500), GST);
        let note = format!(
            "{{\"blend\":{{\"control\":{control},\"blend03\":{treatment}}},\"other\":{{\"x\":9}}}}"
        );
        let note = KeyValue::new("refrain.dropped".to_owned(), note);
        rewrite_with(&table(&case, "exposures"), Some(note), |_, batch| batch);
        case.analyze()
    };
    let lost = told(20, 90);
    let found = check(&lost, "loss");
    assert_eq!(found.status, Status::Fail, "{}", found.finding);
    assert!(
        found
            .finding
            .contains("dropped 110 exposures (control 20, blend03 90"),
        "{}",
        found.finding
    );
    assert_eq!(lost.verdict.recommendation, "INVALID");
    assert!(lost.verdict.headline.contains("lost exposures"));
    // Both arms alike: told, and no reason to distrust.
    let alike = told(52, 58);
    let found = check(&alike, "loss");
    assert_eq!(found.status, Status::Warn, "{}", found.finding);
    assert_ne!(alike.verdict.recommendation, "INVALID", "{:?}", ids(&alike));
    assert!(report::html(&alike, "").contains("dropped 110 exposures"));
}

#[test]
fn an_edit_of_the_configuration_is_told_with_both_digests() {
    let digests = |of: &dyn Fn(usize) -> u8| {
        let case = Case::new(&World::new(29, 800), GST);
        rewrite(&table(&case, "exposures"), |group, batch| {
            let digest =
                BinaryArray::from_iter_values((0..batch.num_rows()).map(|_| [of(group); 32]));
            and_column(&batch, "config_digest", Arc::new(digest))
        });
        case.analyze()
    };
    let edited = digests(&|group| if group == 0 { 0xaa } else { 0xbb });
    let found = check(&edited, "config");
    assert_eq!(found.status, Status::Warn);
    assert!(
        found.finding.starts_with("2 different configurations"),
        "{}",
        found.finding
    );
    assert_eq!(
        edited.observed.config_digests,
        ["aa".repeat(32), "bb".repeat(32)]
    );
    let page = report::html(&edited, "");
    assert!(page.contains("<code>aaaaaaaaaaaa</code>, <code>bbbbbbbbbbbb</code>"));
    assert!(page.contains("raise its epoch"));
    let whole = digests(&|_| 0xaa);
    assert!(whole.quality.iter().all(|check| check.id != "config"));
}

/// Units of the treatment move from one segment to another: overall nothing is missing.
#[test]
fn a_mismatch_within_segments_is_found_where_the_whole_is_in_balance() {
    let moved = |share: u8, looked_before: bool| {
        let case = Case::new(&World::new(30, 6_000), GST);
        rewrite(&table(&case, "exposures"), |_, batch| {
            let text = |name: &str| {
                let column = batch.column_by_name(name).expect("there");
                column.as_string::<i32>().clone()
            };
            let (units, arms, surfaces) = (text("unit_id"), text("variant"), text("surface"));
            let surfaces = (0..batch.num_rows()).map(|row| {
                let last = units.value(row).as_bytes().last().copied().unwrap_or(0);
                match (arms.value(row), surfaces.value(row)) {
                    ("blend03", "search") if last < b'0' + share => "home",
                    (_, surface) => surface,
                }
            });
            with_column(
                &batch,
                "surface",
                Arc::new(StringArray::from_iter_values(surfaces)),
            )
        });
        let mut looks = Looks::new(&case.plan);
        if looked_before {
            looks.looks.push(Look {
                cutoff_us: START_US,
                ..Look::default()
            });
        }
        case.look(&Options {
            looks: Some(looks),
            ..Options::default()
        })
        .0
    };
    for looked_before in [false, true] {
        let analysis = moved(5, looked_before);
        assert_eq!(check(&analysis, "srm").status, Status::Pass);
        let found = check(&analysis, "srm_segments");
        assert_eq!(found.status, Status::Fail, "{}", found.finding);
        assert!(
            found
                .finding
                .starts_with("of 3 segments and versions, surface = `"),
            "{}",
            found.finding
        );
        assert_eq!(analysis.verdict.recommendation, "INVALID");
        let page = report::html(&analysis, "");
        assert!(page.contains("<b>Sample ratio by segment</b>"));
        let sound = moved(0, looked_before);
        let found = check(&sound, "srm_segments");
        assert_eq!(found.status, Status::Pass, "{}", found.finding);
    }
    // Weights that changed: a segment that grew late is no mismatch.
    let mut world = World::new(31, 2_000);
    world.faults.ramp = true;
    let ramped = Case::new(&world, GST).analyze();
    assert_eq!(check(&ramped, "srm_segments").status, Status::Skipped);
}

#[test]
fn what_was_not_served_as_assigned_is_told() {
    let of = |fallback: f64| {
        let mut world = World::new(32, 1_500);
        world.faults.fallback = fallback;
        Case::new(&world, GST).analyze()
    };
    let told = of(0.3);
    let found = check(&told, "served");
    assert_eq!(found.status, Status::Warn);
    let share = told.operation[1].served_other;
    assert!((share - 0.3).abs() < 0.03, "{share}");
    assert!(
        found.finding.contains("control 0.00 %, blend03 "),
        "{}",
        found.finding
    );
    assert_ne!(told.verdict.recommendation, "INVALID");
    let sound = of(0.0);
    assert_eq!(check(&sound, "served").status, Status::Pass);
}

#[test]
fn requests_that_failed_are_a_share_of_each_arm() {
    let case = Case::new(&World::new(29, 1_500), GST);
    let note = "{\"blend\":{\"blend03\":900},\"other\":{\"control\":9}}".to_owned();
    let note = KeyValue::new("refrain.failed".to_owned(), note);
    rewrite_with(&table(&case, "exposures"), Some(note), |_, batch| batch);
    let analysis = case.analyze();
    let [control, treatment] = &analysis.operation[..] else {
        panic!("two arms");
    };
    assert_eq!(control.errors, Some(0.0));
    let answered = treatment.requests.expect("shown");
    let share = 900.0 / f64::from(u32::try_from(900 + answered).expect("few"));
    assert_eq!(treatment.errors, Some(share));
    let page = report::html(&analysis, "");
    assert!(page.contains(">Errors</th>"), "in the table");
}
