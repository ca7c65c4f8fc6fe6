//! A rollout over a real journal, with requests that are counted as they would be.

use refrain_experiments::GroupCounts;

use super::*;

const TEXT: &str = r#"
[assignment]
journal = "experiments.jsonl"
[variant.plain]
score = "similarity"
[variant.bold]
score = "similarity"
[layer.ranking]
epoch = 1
[surface.default]
layer = "ranking"
variant = "plain"
[experiment.careful]
kind = "rollout"
layer = "ranking"
epoch = 1
allocation_bp = 1000
rollout = { on_inconclusive = "hold", steps_bp = [1000, 5000, 10000], min_hold = "0s", look_every = "1s", max_requests = 20000, min_requests = 500 }
[[experiment.careful.arm]]
name = "control"
variant = "plain"
[[experiment.careful.arm]]
name = "treatment"
variant = "bold"
[[experiment.careful.metric]]
name = "error_rate"
role = "guardrail"
direction = "down"
margin_abs = 0.02
"#;

const ANSWERED: Fate = Fate::Answered {
    empty: false,
    degraded: false,
};

struct World {
    folder: tempfile::TempDir,
    config: Config,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
}

impl World {
    fn new() -> Self {
        Self::of(TEXT)
    }

    fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("refrain.toml");
        fs_err::write(&file, text).expect("writable");
        let config = Config::read(&file).expect("valid");
        let experiment = config.experiments.experiment("careful").expect("declared");
        let action = Action::Allocate {
            experiment: "careful".to_owned(),
            epoch: 1,
            arms_digest: refrain_experiments::arms_digest(experiment),
            layer: "ranking".to_owned(),
            layer_epoch: 1,
            bp: 1_000,
            seed: "s".to_owned(),
            waived: Vec::new(),
        };
        let signature = Signature {
            by: "anna",
            reason: "starts",
            config_digest: "",
        };
        let journal = config.journal().expect("named");
        journal
            .append(signature, |_| Ok::<_, JournalFileError>(action))
            .expect("fits");
        Self {
            folder,
            config,
            live: Arc::default(),
            metrics: Arc::new(Metrics::new("scalar")),
        }
    }

    fn keeper(&self) -> Keeper {
        let mut keeper = Keeper::new(Arc::clone(&self.live), Arc::clone(&self.metrics));
        keeper.follow(&self.config, None);
        keeper
    }

    /// Requests of units of the rollout; of a hundred of treatment, `failing` fail.
    fn requests(&self, units: u32, failing: u32) {
        self.requests_that(units, |treated| {
            let fails = treated.is_some_and(|treated| treated % 100 < failing);
            (if fails { Fate::Failed } else { ANSWERED }, Duration::ZERO)
        });
    }

    /// Requests of units of the rollout; `end` says how one ends and what it takes, given the how manieth of
    /// treatment it is, if it is of that.
    fn requests_that(&self, units: u32, end: impl Fn(Option<u32>) -> (Fate, Duration)) {
        let policy = self.config.check().expect("valid");
        let mut treated = 0;
        for unit in 0..units {
            let unit = format!("u{unit}");
            let assignment = policy.experiments().assign("", &unit);
            let mut watched = self.live.watch([&assignment].into_iter(), &unit);
            let treatment = assignment.arm == Some("treatment");
            treated += u32::from(treatment);
            let (fate, took) = end(treatment.then_some(treated));
            watched.start = watched.start.checked_sub(took).expect("the machine is up");
            watched.ended(fate);
        }
    }

    fn share(&self) -> (u32, bool) {
        let journal = self
            .config
            .journal()
            .expect("named")
            .read()
            .expect("verifies");
        let holding = journal.ledger().holding("careful").expect("allocated");
        (holding.share_bp(), holding.held)
    }
}

/// Looks now, whatever the time is.
fn look(keeper: &mut Keeper) -> bool {
    for rollout in &mut keeper.rollouts {
        rollout.next_look = Instant::now();
    }
    keeper.look("digest", "v1")
}

#[test]
fn a_treatment_that_fails_is_stepped_back_at_the_first_look_and_stays() {
    let world = World::new();
    let mut keeper = world.keeper();
    assert!(!look(&mut keeper), "nothing was counted yet");
    world.requests(40_000, 30);
    assert!(look(&mut keeper));
    assert_eq!(world.share(), (0, true));
    assert_eq!(world.metrics.rollout_step_backs.get(), 1);
    let text =
        fs_err::read_to_string(world.folder.path().join("experiments.jsonl")).expect("there");
    let line = text.lines().last().expect("a line");
    assert!(line.contains("\"action\":\"step_back\""), "{line}");
    assert!(
        line.contains("\"guardrail\":\"error_rate\"") && line.contains("\"version\":\"v1\""),
        "{line}"
    );
    // It stands until a person ramps it, also after a restart.
    assert!(!look(&mut keeper));
    assert!(!look(&mut world.keeper()));
    assert_eq!(world.share(), (0, true));
    // Its units are out: they get the variant of the surface.
    let policy = world.config.check().expect("valid");
    for unit in 0..1_000 {
        let assignment = policy
            .experiments()
            .assign("", &format!("u{unit}"))
            .experiment;
        assert_eq!(assignment, None);
    }
}

/// Every number that the server counts can stop a rollout: over the real journal, at the first look.
#[test]
fn each_guardrail_steps_back_what_breaks_it_and_nothing_else() {
    let empty = Fate::Answered {
        empty: true,
        degraded: false,
    };
    let degraded = Fate::Answered {
        empty: false,
        degraded: true,
    };
    let (fast, slow) = (Duration::from_millis(2), Duration::from_millis(40));
    let some = |treated: Option<u32>, worse| match treated {
        Some(treated) if treated % 100 < 30 => worse,
        _ => (ANSWERED, fast),
    };
    for (guardrail, margin, worse) in [
        ("empty_rate", "margin_abs = 0.02", (empty, fast)),
        ("degraded_rate", "margin_abs = 0.02", (degraded, fast)),
        ("latency_p95", "margin_rel = 0.2", (ANSWERED, slow)),
    ] {
        let text = TEXT
            .replace("error_rate", guardrail)
            .replace("margin_abs = 0.02", margin);
        let harmed = World::of(&text);
        let mut keeper = harmed.keeper();
        harmed.requests_that(40_000, |treated| some(treated, worse));
        assert!(look(&mut keeper), "{guardrail}");
        assert_eq!(harmed.share(), (0, true), "{guardrail}");
        let journal = harmed.folder.path().join("experiments.jsonl");
        let journal = fs_err::read_to_string(journal).expect("there");
        let line = journal.lines().last().expect("a line");
        let named = format!("\"guardrail\":\"{guardrail}\"");
        assert!(
            line.contains("\"action\":\"step_back\"") && line.contains(&named),
            "{line}"
        );
        // Trouble that the control has more of is not the treatment's.
        let shared = World::of(&text);
        let mut keeper = shared.keeper();
        shared.requests_that(40_000, |treated| match treated {
            None => worse,
            treated => some(treated, worse),
        });
        look(&mut keeper);
        assert!(!shared.share().1, "{guardrail}");
        assert_eq!(shared.metrics.rollout_step_backs.get(), 0, "{guardrail}");
    }
}

/// Mended and ramped by a person, it is judged by what comes then; and its error rate is not given twice.
#[test]
fn a_person_who_ramps_it_again_has_it_counted_anew() {
    let world = World::new();
    let mut keeper = world.keeper();
    world.requests(40_000, 30);
    assert!(look(&mut keeper));
    assert_eq!(world.share(), (0, true));
    let signature = Signature {
        by: "anna",
        reason: "mended",
        config_digest: "",
    };
    let ramp = Action::Ramp {
        experiment: "careful".to_owned(),
        from_bp: 0,
        to_bp: 1_000,
        seed: "t".to_owned(),
    };
    let journal = world.config.journal().expect("named");
    journal
        .append(signature, |_| Ok::<_, JournalFileError>(ramp))
        .expect("fits");
    // Also by a server that was restarted meanwhile.
    let mut restarted = world.keeper();
    for keeper in [&mut keeper, &mut restarted] {
        assert!(!look(keeper), "nothing was counted since");
        assert_eq!(world.share(), (1_000, false));
        assert_eq!(keeper.rollouts[0].monitor.state().window, 1);
    }
    let counts = world.live.counts("careful").expect("followed");
    assert_eq!(counts, RolloutCounts::default());
    world.requests(40_000, 0);
    assert!(look(&mut keeper));
    assert_eq!(
        world.share(),
        (5_000, false),
        "advanced by what it does now"
    );
}

#[test]
fn a_harmless_one_goes_up_step_by_step_and_is_remembered() {
    let world = World::new();
    let mut keeper = world.keeper();
    world.requests(60_000, 0);
    assert!(look(&mut keeper));
    assert_eq!(world.share(), (5_000, false));
    // A restart goes on with the counts before it.
    let before = world.live.counts("careful").expect("followed");
    let fresh = World {
        live: Arc::default(),
        metrics: Arc::clone(&world.metrics),
        config: world.config.clone(),
        folder: tempfile::tempdir().expect("a folder"),
    };
    let mut keeper = fresh.keeper();
    assert_eq!(fresh.live.counts("careful").expect("followed"), before);
    world.requests(1, 0);
    fresh.requests(20_000, 0);
    assert!(look(&mut keeper));
    assert_eq!(fresh.share(), (10_000, false));
    assert!(!look(&mut keeper), "all steps are done");
    assert_eq!(fresh.share(), (10_000, false));
}

#[test]
fn who_is_forced_refused_or_elsewhere_is_not_counted_and_a_panic_is_a_failure() {
    let world = World::new();
    let _keeper = world.keeper();
    let policy = world.config.check().expect("valid");
    let experiments = policy.experiments();
    let inside = (0..)
        .map(|unit| format!("u{unit}"))
        .find(|unit| experiments.assign("", unit).experiment.is_some())
        .expect("a tenth is");
    let assignment = experiments.assign("", &inside);
    let answered = Fate::Answered {
        empty: true,
        degraded: true,
    };
    world
        .live
        .watch(
            [&experiments.force("", &inside, "bold")].into_iter(),
            &inside,
        )
        .ended(answered);
    world
        .live
        .watch([&experiments.unassigned("")].into_iter(), "")
        .ended(answered);
    world
        .live
        .watch([&assignment].into_iter(), &inside)
        .ended(Fate::Refused);
    let sum = |of: fn(&GroupCounts) -> u64| -> u64 {
        let counts = world.live.counts("careful").expect("followed");
        counts.arms.iter().flatten().map(of).sum()
    };
    assert_eq!(sum(|group| group.requests), 0);
    drop(world.live.watch([&assignment].into_iter(), &inside));
    world
        .live
        .watch([&assignment].into_iter(), &inside)
        .ended(answered);
    assert_eq!(sum(|group| group.requests), 2);
    assert_eq!(sum(|group| group.errors), 1);
    assert_eq!(
        (sum(|group| group.empty), sum(|group| group.degraded)),
        (1, 1)
    );
}
