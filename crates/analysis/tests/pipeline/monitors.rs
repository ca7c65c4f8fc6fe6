//! What each design shows at a look, what it remembers, and what it never shows twice.

use refrain_analysis::methods::special::normal_sf;
use refrain_analysis::plan::Margin;
use refrain_analysis::simulate::{START_US, World};
use refrain_analysis::{Analysis, Looks, Options, report};

use crate::support::{Case, GST, comparison};

const KEY: &str = "minutes_week1 / blend03";

/// Looks on these days since the start, and what they leave behind.
fn looked(case: &Case, days: &[i64]) -> (Vec<Analysis>, Looks) {
    let mut looks = Looks::new(&case.plan);
    let analyses = days
        .iter()
        .map(|day| {
            let mut options = Options {
                looks: Some(looks.clone()),
                ..Options::default()
            };
            options.read.until_us = Some(START_US + day * 86_400_000_000);
            let (analysis, look) = case.look(&options);
            looks.looks.push(look);
            analysis
        })
        .collect();
    (analyses, looks)
}

fn precise(seed: u64, sd: Option<f64>) -> Case {
    let mut case = Case::new(&World::new(seed, 2_000), r#"{ method = "fixed_power" }"#);
    case.plan.metrics.truncate(1);
    case.plan.metrics[0].mde = Some(Margin::Relative(0.2));
    case.plan.metrics[0].sd = sd;
    case
}

#[test]
fn a_fixed_power_design_is_read_once() {
    let days = [9, 11, 14, 17, 20, 28];
    let (analyses, looks) = looked(&precise(20, None), &days);
    let shown: Vec<usize> = (0..days.len())
        .filter(|at| !analyses[*at].metrics[0].comparisons.is_empty())
        .collect();
    let [read] = shown[..] else {
        panic!("read at {shown:?}")
    };
    assert!(read > 0 && read < days.len() - 1, "at {read}");
    for (at, (analysis, look)) in analyses.iter().zip(&looks.looks).enumerate() {
        // Nothing of the effect lies in the file of looks before.
        assert_eq!(look.metrics[KEY].z.is_some(), at == read);
        assert_eq!(analysis.verdict.effects_hidden.is_some(), at != read);
    }
    let precision: Vec<f64> = looks.looks.iter().map(|l| l.metrics[KEY].t).collect();
    assert!(
        precision[read] >= 1.0 && precision[..read].iter().all(|t| *t < 1.0),
        "{precision:?}"
    );
    let after = &analyses[read + 1].verdict;
    assert_eq!(after.recommendation, "KEEP_RUNNING");
    assert!(
        after
            .effects_hidden
            .as_ref()
            .expect("hidden")
            .contains("was, at an earlier look"),
        "{after:?}"
    );
    assert!(after.headline.contains("that reading stands"), "{after:?}");
    assert_ne!(analyses[read].verdict.recommendation, "KEEP_RUNNING");
}

#[test]
fn a_planned_deviation_keeps_a_lucky_variance_from_stopping_early() {
    let (plain, _) = looked(&precise(21, None), &[14, 17]);
    assert!(!plain[1].metrics[0].comparisons.is_empty());
    let (cautious, looks) = looked(&precise(21, Some(500.0)), &[14, 17]);
    assert!(cautious[1].verdict.effects_hidden.is_some());
    assert!(looks.looks[1].metrics[KEY].t < 0.2, "{:?}", looks.looks[1]);
}

#[test]
fn a_fixed_design_is_read_once() {
    let case = Case::new(
        &World::new(22, 1_000),
        r#"{ method = "fixed", max_units = 900 }"#,
    );
    let (analyses, _) = looked(&case, &[12, 26, 28]);
    let shown: Vec<bool> = analyses
        .iter()
        .map(|a| a.verdict.effects_hidden.is_none())
        .collect();
    assert_eq!(shown, [false, true, false]);
    // The same data again is the same look.
    let (again, looks) = looked(&case, &[12, 26]);
    let mut options = Options {
        looks: Some(looks),
        ..Options::default()
    };
    options.read.until_us = Some(START_US + 26 * 86_400_000_000);
    let repeated = case.look(&options).0;
    assert_eq!(
        comparison(&repeated, "minutes_week1").delta,
        comparison(&again[1], "minutes_week1").delta
    );
}

#[test]
fn each_look_says_what_it_asked_and_what_it_cost() {
    let case = Case::new(&World::new(23, 4_000), GST);
    let (analyses, looks) = looked(&case, &[10, 13, 16, 22]);
    let mut before = 0.0;
    for (at, look) in looks.looks.iter().enumerate() {
        let found = look.metrics[KEY];
        let (spent, nominal) = (
            found.spent.expect("a budget"),
            found.nominal.expect("a bound"),
        );
        assert!(
            (spent - 0.05 * found.t * found.t).abs() < 1e-12,
            "{found:?}"
        );
        // A look's own level is at least what it adds to the budget, and at the first look just that.
        assert!(nominal > spent - before - 1e-12, "{found:?}");
        assert!(at > 0 || (nominal - spent).abs() < 1e-9, "{found:?}");
        let bound = found.bound.expect("judged");
        // Student's t with few units asks for more standard errors at the same level.
        assert!(normal_sf(bound) <= nominal * (1.0 + 1e-9), "{found:?}");
        before = spent;
    }
    assert!((before - 0.05).abs() < 1e-12, "all is spent");
    let last = analyses.last().expect("four");
    assert_eq!(last.looks[3].metrics[KEY], looks.looks[3].metrics[KEY]);
    let page = report::html(last, "refrain experiment report");
    assert!(page.contains("What each look asked for, group-sequential, spending α t^2"));
    assert!(page.contains("0.0500<small>of 0.0500</small>"));
    // Looks of before these were told are still read.
    let old = r#"{ "t": 0.4, "z": 1.0, "bound": 2.6 }"#;
    let old: refrain_analysis::verdict::LookMetric = serde_json::from_str(old).expect("readable");
    assert_eq!((old.z, old.spent), (Some(1.0), None));
}

#[test]
fn evidence_that_holds_at_all_looks_never_weakens() {
    for method in ["always_valid", "msprt"] {
        let mut world = World::new(24, 4_000);
        world.lift = 0.15;
        let case = Case::new(
            &world,
            &format!(r#"{{ method = "{method}", max_units = 4000 }}"#),
        );
        let (analyses, looks) = looked(&case, &[10, 13, 16, 22]);
        let p: Vec<f64> = looks
            .looks
            .iter()
            .map(|l| l.metrics[KEY].p.expect("valid"))
            .collect();
        assert!(
            p.is_sorted_by(|a, b| a >= b) && p[3] < p[0],
            "{method} {p:?}"
        );
        for (analysis, p) in analyses.iter().zip(&p) {
            let found = comparison(analysis, "minutes_week1");
            assert_eq!(found.p_all_looks, Some(*p));
            // Evidence enough is what crosses the bound.
            let crossed = found.z >= found.bound.expect("judged");
            assert!(!crossed || *p <= 0.05, "{method} {found:?}");
        }
    }
}

#[test]
fn what_is_too_good_is_said_to_be() {
    let mut world = World::new(25, 2_000);
    world.lift = 2.0;
    let analysis = Case::new(&world, r#"{ method = "gst", max_units = 2000 }"#).analyze();
    assert!(comparison(&analysis, "minutes_week1").twyman);
    let sentence = "the effect of `blend03` is larger than is believable: by Twyman's law look for a defect \
                    in logging or assignment before celebrating";
    let reason = format!("Note, minutes_week1: {sentence}.");
    assert!(
        analysis.verdict.reasons.contains(&reason),
        "{:?}",
        analysis.verdict.reasons
    );
    let page = report::html(&analysis, "refrain experiment report");
    assert!(
        page.matches("Twyman").count() >= 2,
        "in the verdict and in the row"
    );
    world.lift = 0.1;
    let plain = Case::new(&world, r#"{ method = "gst", max_units = 2000 }"#).analyze();
    assert!(!comparison(&plain, "minutes_week1").twyman);
    assert!(!report::html(&plain, "again").contains("Twyman"));
}

/// Every head of a table stands with its explanation on the same page.
#[test]
fn heads_are_explained_where_they_stand() {
    let mut world = World::new(26, 3_000);
    world.lift = 0.05;
    world.faults.fallback = 0.3;
    world.lists = Some(refrain_analysis::simulate::Lists {
        length: 5,
        show: refrain_analysis::simulate::Show::Ranked,
    });
    let case = Case::new(&world, r#"{ method = "gst", max_units = 3000 }"#);
    let (analyses, _) = looked(&case, &[11, 14, 28]);
    let page = report::html(analyses.last().expect("three"), "refrain experiment report");
    let terms: Vec<&str> = page
        .split("<p><b>")
        .skip(1)
        .filter_map(|rest| rest.split_once(".</b>"))
        .flat_map(|(term, _)| term.split(", "))
        .collect();
    let heads: Vec<&str> = page
        .split("<th")
        .skip(1)
        .filter(|cell| cell.starts_with(['>', ' ']))
        .filter_map(|cell| cell.split_once('>')?.1.split_once("</th>"))
        .map(|(head, _)| head)
        .filter(|head| !case.plan.arms.iter().any(|arm| arm.name == *head))
        .collect();
    for section in [
        "Look",
        "Who gets what",
        "Gini",
        "Spent α",
        "Week 2",
        "Uptake",
        "Rule",
    ] {
        assert!(heads.contains(&section), "the page lacks {section}");
    }
    for head in heads {
        assert!(terms.contains(&head), "nothing explains `{head}`");
    }
}
