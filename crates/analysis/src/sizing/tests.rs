use super::*;

const DRAFT: &str = r#"
[experiment.blend]
epoch = 1
design = { method = "fixed", alpha = 0.05, power = 0.8 }
[[experiment.blend.arm]]
name = "control"
weight = 1
[[experiment.blend.arm]]
name = "blend03"
weight = 1
[[experiment.blend.metric]]
name = "a"
role = "success"
window = "closed(7d,14d)"
mde_rel = 0.01
[[experiment.blend.metric]]
name = "b"
role = "success"
window = "closed(0d,1d)"
mde_rel = 0.01
"#;

fn plan(method: &str, guardrails: usize) -> Plan {
    let mut text = DRAFT.replace("\"fixed\"", &format!("\"{method}\""));
    for at in 0..guardrails {
        text.push_str(&format!(
                "[[experiment.blend.metric]]\nname = \"g{at}\"\nrole = \"guardrail\"\nwindow = \"closed(0d,7d)\"\nmargin_rel = 0.01\n"
            ));
    }
    Plan::draft(&text, None).expect("a draft")
}

fn question(plan: &Plan) -> Question {
    let baseline = Baseline {
        value: 0.5,
        sd: 0.5,
        variance_reduction: 0.0,
    };
    Question {
        baselines: plan
            .metrics
            .iter()
            .map(|m| (m.name.clone(), baseline))
            .collect(),
        traffic: None,
        looks: LOOKS,
    }
}

/// Two success metrics and four guardrails, as spotify-confidence sizes them (E8).
#[test]
fn the_size_is_that_of_the_reference() {
    let mut plan = plan("fixed", 4);
    plan.design.alpha_deterioration = 0.0;
    plan.design.alpha_quality = 0.0;
    let found = size(&plan, &question(&plan)).expect("sized");
    assert!((found.levels.success - 0.025).abs() < 1e-12);
    assert!((found.levels.power - 0.96).abs() < 1e-12);
    assert_eq!(found.units, 550_758);
    assert_eq!(found.arms.iter().map(|a| a.units).sum::<u64>(), 550_758);
}

#[test]
fn looks_cost_units_and_covariates_save_them() {
    let units = |method: &str, saved: f64| {
        let plan = plan(method, 1);
        let mut question = question(&plan);
        for baseline in question.baselines.values_mut() {
            baseline.variance_reduction = saved;
        }
        size(&plan, &question).expect("sized").units
    };
    let (fixed, gst, always) = (
        units("fixed", 0.0),
        units("gst", 0.0),
        units("always_valid", 0.0),
    );
    assert!(fixed < gst && gst < fixed * 13 / 10, "{fixed} {gst}");
    assert!(gst < always, "{gst} {always}");
    // If the decision falls at the end, a mixture costs about as much; it pays where it falls before.
    let mixture = units("msprt", 0.0);
    assert!(mixture.abs_diff(always) < always / 20, "{mixture} {always}");
    let ratio = as_f64(units("fixed", 0.75)) / as_f64(fixed);
    assert!((ratio - 0.25).abs() < 1e-4, "{ratio}");
}

#[test]
fn curves_meet_the_size_and_traffic_makes_it_days() {
    let plan = plan("gst", 1);
    let mut question = question(&plan);
    question.traffic = Some(Traffic {
        units_per_day: 50_000.0,
        allocation: 0.2,
    });
    let found = size(&plan, &question).expect("sized");
    let duration = found.duration.expect("traffic is known");
    assert!((duration.intake_days - as_f64(found.units) / 10_000.0).abs() < 1e-9);
    assert!(
        (duration.days - duration.intake_days - 14.0).abs() < 1e-9,
        "the longest window"
    );
    for metric in &found.metrics {
        assert!(metric.achieved_power >= metric.power - 1e-9, "{metric:?}");
        assert!(
            metric.detectable <= metric.effect * (1.0 + 1e-9),
            "{metric:?}"
        );
        for curve in [&metric.curve, &metric.by_week, &metric.by_allocation] {
            assert!(curve.len() >= 12);
            assert!(
                curve
                    .windows(2)
                    .all(|p| p[0].detectable >= p[1].detectable && p[0].power <= p[1].power)
            );
        }
    }
    let hungriest = found
        .metrics
        .iter()
        .find(|m| m.name == found.hungriest)
        .expect("there");
    assert_eq!(hungriest.units, found.units);
    assert!((hungriest.achieved_power - hungriest.power).abs() < 1e-3);
}

#[test]
fn unequal_arms_need_the_share_of_the_smallest() {
    let text = DRAFT.replacen(
        "weight = 1\n[[experiment.blend.metric]]",
        "weight = 3\n[[experiment.blend.metric]]",
        1,
    );
    let uneven = Plan::draft(&text, None).expect("a draft");
    assert_eq!(uneven.arms[1].share, 0.75);
    let (even, uneven) = (
        size(&plan("fixed", 0), &question(&plan("fixed", 0))).expect("sized"),
        size(&uneven, &question(&uneven)).expect("sized"),
    );
    // 1/q_c + 1/q_t: 4 for halves, 16/3 for quarters.
    let ratio = as_f64(uneven.units) / as_f64(even.units);
    assert!((ratio - 4.0 / 3.0).abs() < 1e-4, "{ratio}");
}

#[test]
fn what_cannot_be_sized_is_said() {
    let plan = plan("gst", 0);
    let mut question = question(&plan);
    question.baselines.remove("b");
    assert_eq!(
        size(&plan, &question)
            .expect_err("nothing known")
            .to_string(),
        "nothing is known of b: how large they are without the treatment, and how much they vary"
    );
    question
        .baselines
        .insert("c".to_owned(), Baseline::share(0.5));
    assert!(matches!(
        size(&plan, &question),
        Err(SizingError::Unknown { .. })
    ));
    let mut nothing = self::question(&plan);
    nothing.baselines.values_mut().for_each(|b| b.sd = 0.0);
    assert!(matches!(
        size(&plan, &nothing),
        Err(SizingError::Metric { .. })
    ));
    for (per_day, allocation) in [(0.0, 0.5), (f64::NAN, 0.5), (10.0, 0.0), (10.0, 1.5)] {
        let mut wrong = self::question(&plan);
        wrong.traffic = Some(Traffic {
            units_per_day: per_day,
            allocation,
        });
        assert!(matches!(
            size(&plan, &wrong),
            Err(SizingError::Traffic { .. })
        ));
    }
}
