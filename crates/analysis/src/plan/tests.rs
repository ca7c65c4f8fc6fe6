use super::*;

const GOOD: &str = r#"
[layer.ranking]
epoch = 1
[experiment.blend]
kind = "ab"
layer = "ranking"
epoch = 3
allocation_bp = 1000
design = { method = "gst", spending = "power(2)", alpha = 0.05, power = 0.8, max_units = 5000 }
segments = ["surface"]
policy = { settle = "1d" }
[[experiment.blend.arm]]
name = "control"
weight = 1
params = { "blend.alpha" = 0.0 }
[[experiment.blend.arm]]
name = "blend03"
weight = 3
[[experiment.blend.metric]]
name = "minutes_w2"
event = "listen_minutes"
role = "success"
window = "closed(7d,14d)"
[[experiment.blend.metric]]
name = "latency_p99"
role = "guardrail"
type = "quantile(0.99)"
direction = "down"
margin_rel = 0.03
"#;

#[test]
fn the_file_of_the_server_is_the_plan() {
    let plan = Plan::from_toml(GOOD, None).expect("good");
    assert_eq!(plan.epoch, 3);
    assert_eq!(plan.arms[1].share, 0.75);
    assert_eq!(plan.policy.settle, DAY_US);
    assert_eq!(
        plan.metrics[0].window,
        Window::Closed {
            from_us: 7 * DAY_US,
            to_us: 14 * DAY_US
        }
    );
    assert_eq!(
        plan.metrics[1].source,
        Source::Exposure(ExposureValue::Latency)
    );
    assert_eq!(plan.metrics[1].margin, Some(Margin::Relative(0.03)));
    assert_eq!(plan.digest.len(), 32);
}

#[test]
fn every_mistake_is_named_with_its_place() {
    for (from, to, says) in [
        (
            "role = \"guardrail\"",
            "role = \"quality\"",
            "metric[1] (latency_p99).margin: belongs to what an arm may change",
        ),
        (
            "closed(7d,14d)",
            "closed(14d,7d)",
            "metric[0] (minutes_w2).window",
        ),
        ("closed(7d,14d)", "week", "window"),
        ("closed(7d,14d)", "open(1d)", "2 to 366 days"),
        ("closed(7d,14d)", "open(36h)", "2 to 366 days"),
        (
            "window = \"closed(7d,14d)\"",
            "window = \"open(14d)\"\nmissing = \"exclude\"",
            "a measurement of 0",
        ),
        (
            "window = \"closed(7d,14d)\"",
            "window = \"open(14d)\"\ncovariate = \"before\"",
            "cannot adjust",
        ),
        (
            "direction = \"down\"",
            "direction = \"down\"\nwindow = \"open(14d)\"",
            "mean or a proportion",
        ),
        ("max_units = 5000", "max_units = 0", "design.max_units"),
        (", max_units = 5000", "", "refrain experiment plan"),
        ("alpha = 0.05", "alpha = 1.5", "design.alpha"),
        ("power(2)", "power(-1)", "design.spending"),
        ("role = \"success\"", "role = \"sucess\"", "sucess"),
        (
            "role = \"success\"",
            "role = \"scan\"",
            "needs a metric with role",
        ),
        ("quantile(0.99)", "quantile(1.2)", "type"),
        ("margin_rel = 0.03", "margin_rel = -1", "margin"),
        ("margin_rel = 0.03", "margin_real = 1", "margin_real"),
        ("weight = 3", "weight = nan", "weight"),
        ("name = \"blend03\"", "name = \"control\"", "there twice"),
        ("settle = \"1d\"", "settle = \"soon\"", "soon"),
        (
            "method = \"gst\"",
            "method = \"fixed_power\"",
            "experiment.blend.metric[0] (minutes_w2).mde: is missing",
        ),
        (
            "method = \"gst\"",
            "method = \"msprt\"",
            "experiment.blend.metric[0] (minutes_w2).mde: is missing",
        ),
        (
            "segments = [\"surface\"]",
            "segments = [\"surface\"]\nexplore = [\"surface\"]",
            "`surface` is there twice",
        ),
        (
            "segments = [\"surface\"]",
            "explore = [\"a\", \"b\", \"c\", \"d\", \"e\"]",
            "at most 4",
        ),
        ("margin_rel = 0.03", "margin_rel = 0.03\nsd = 0.0", "sd"),
    ] {
        let text = GOOD.replace(from, to);
        assert_ne!(text, GOOD, "{from}");
        let error = Plan::from_toml(&text, Some("blend"))
            .expect_err(to)
            .to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
    let error = Plan::from_toml(GOOD, Some("bland"))
        .expect_err("unknown")
        .to_string();
    assert!(error.contains("blend"), "{error}");
}

#[test]
fn a_design_that_stops_on_precision_knows_what_matters() {
    let fixed_power = GOOD.replace("method = \"gst\"", "method = \"fixed_power\"");
    let with = |mde: &str| fixed_power.replace("role = \"success\"", mde);
    let plan = Plan::from_toml(&with("role = \"success\"\nmde_rel = 0.1\nsd = 3.0"), None);
    assert_eq!(plan.expect("complete").metrics[0].sd, Some(3.0));
    // Sizing may come first.
    assert!(Plan::draft(&fixed_power, None).is_ok());
    // A rollout decides by margins.
    let rollout = |text: &str| {
        let text = text
            .replace("kind = \"ab\"", "kind = \"rollout\"")
            .replace("role = \"success\"", "role = \"guardrail\"");
        Plan::from_toml(&text, None)
    };
    assert!(rollout(&fixed_power).is_ok());
    let error = rollout(&fixed_power.replace("margin_rel = 0.03\n", ""))
        .expect_err("nothing to be precise for")
        .to_string();
    assert!(error.contains("metric[0] (minutes_w2).margin"), "{error}");
}

#[test]
fn declared_segments_come_before_explored_ones() {
    let text = GOOD.replace("segments =", "explore = [\"device\"]\nsegments =");
    let plan = Plan::from_toml(&text, None).expect("good");
    assert_eq!(plan.segments, ["surface", "device"]);
    assert_eq!(plan.confirmatory, 1);
}

/// What the pages show is what the analysis reads: the templates of the server, and the plans beside them.
#[test]
fn the_plans_of_the_pages_are_read() {
    let page = |name: &str| {
        let page = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        fs_err::read_to_string(page).expect("the page")
    };
    let blocks = |page: &str| -> Vec<String> {
        let blocks = page.split("```toml\n").skip(1);
        blocks
            .filter_map(|block| Some(block.split_once("\n```")?.0.to_owned()))
            .filter(|block| block.contains("[experiment."))
            .collect()
    };
    let mut kinds = Vec::new();
    let mut encouragement = false;
    let server = page("experiments.md");
    let analysis = page("analysis.md");
    for block in blocks(&server).iter().chain(&blocks(&analysis)) {
        match Plan::from_toml(block, None) {
            Ok(plan) => {
                kinds.push(plan.kind);
                encouragement |= plan.uptake.is_some();
            }
            // Nobody sees it.
            Err(PlanError::Shadow { .. }) => {}
            Err(error) => panic!("{error} in {block}"),
        }
    }
    for kind in [Kind::Ab, Kind::Rollout, Kind::Interleave, Kind::Holdout] {
        assert!(kinds.contains(&kind), "no template of {kind:?}: {kinds:?}");
    }
    assert!(encouragement, "no template of an encouragement");
    let rollout = blocks(&server)
        .into_iter()
        .find(|block| block.contains("kind = \"rollout\""))
        .expect("a template");
    let plan = Plan::from_toml(&rollout, None).expect("read");
    assert_eq!(plan.design.method, Method::AlwaysValid);
    assert_eq!(plan.left_out, ["error_rate"]);
    let [empty, latency] = plan.metrics.as_slice() else {
        panic!("{:?}", plan.metrics)
    };
    let day = Window::Closed {
        from_us: 0,
        to_us: DAY_US,
    };
    let count = Source::Exposure(ExposureValue::Count);
    assert_eq!((empty.kind, empty.window), (MetricType::Ratio, day));
    assert_eq!(empty.source, Source::Exposure(ExposureValue::Empty));
    assert_eq!(empty.denominator, Some(count));
    assert_eq!(
        (latency.kind, latency.window),
        (MetricType::Quantile(0.99), day)
    );
}
