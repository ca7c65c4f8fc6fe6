use proptest::prelude::*;

use std::collections::HashSet;

use super::*;
use crate::config::{Config, DEFAULT_TOML};
use crate::ledger::Ledger;

const VARIANTS: &[&str] = &["plain", "balanced"];

#[test]
fn the_default_splits_everybody_in_halves() {
    let experiments = compile(DEFAULT_TOML);
    let mut balanced = 0;
    for i in 0..10_000 {
        let a = experiments.assign("home", &format!("u{i}"));
        assert_eq!((a.reason, a.probability), (Reason::Split, 0.5));
        assert_eq!(a.arm == Some("balanced"), a.grid >= 500_000);
        assert_eq!(a.variant == "balanced", a.grid >= 500_000);
        balanced += u32::from(a.variant == "balanced");
    }
    // Five standard deviations of a fair coin.
    assert!((4_750..=5_250).contains(&balanced), "{balanced}");
}

#[test]
fn assignment_has_the_published_buckets_and_grid() {
    let experiments = compile(&one_experiment("rank-blend", 10_000, &[0.5, 0.5]));
    for (unit, bucket, grid) in [
        ("u1", 729_445, 26_555),
        ("u2", 202_655, 704_815),
        ("élodie", 453_305, 6_216),
    ] {
        let a = experiments.assign("default", unit);
        assert_eq!((a.layer, a.layer_epoch), ("ranking", 1));
        assert_eq!((a.experiment, a.experiment_epoch), (Some("rank-blend"), 1));
        assert_eq!((a.bucket, a.grid), (bucket, grid), "{unit}");
    }
}

#[test]
fn outside_the_allocation_the_surface_decides() {
    let experiments = compile(&one_experiment("e", 0, &[1.0, 1.0]));
    let a = experiments.assign("anywhere", "u1");
    assert_eq!(
        (a.variant, a.reason, a.probability),
        ("plain", Reason::Default, 1.0)
    );
    assert_eq!((a.experiment, a.arm, a.grid), (None, None, 0));
    assert_eq!(a.bucket, 729_445);
    let forced = experiments.force("anywhere", "u1", "balanced");
    assert_eq!(
        (forced.variant, forced.reason),
        ("balanced", Reason::Forced)
    );
    assert_eq!(forced.bucket, 729_445);
    let everybody = compile(&one_experiment("e", 10_000, &[1.0, 1.0]));
    let unassigned = everybody.unassigned("anywhere");
    assert_eq!(
        (unassigned.variant, unassigned.reason),
        ("plain", Reason::Default)
    );
    assert_eq!((unassigned.experiment, unassigned.bucket), (None, 0));
}

#[test]
fn weights_become_shares_of_the_grid() {
    let experiments = compile(&one_experiment("e", 10_000, &[1.0, 2.0, 5.0]));
    let arms = &experiments.experiments[0].arms;
    let ends: Vec<_> = arms.iter().map(|arm| arm.end).collect();
    assert_eq!(ends, [125_000, 375_000, 1_000_000]);
    let shares: Vec<_> = arms.iter().map(|arm| arm.probability).collect();
    assert_eq!(shares, [0.125, 0.25, 0.625]);
}

#[test]
fn a_closed_intake_keeps_those_inside_and_admits_nobody() {
    let text = one_experiment("e", 6_000, &[0.5, 0.5]);
    let closed = text.replace("allocation_bp", "admitted = \"e.units\"\nallocation_bp");
    let list: Vec<String> = (0..500).map(|n| format!("u{n}")).collect();
    let load = |units: &[String]| {
        let mut config = Config::from_toml(&closed).expect("valid");
        let units = units.join("\n");
        config
            .load_intakes(&mut |file| {
                assert_eq!(file, "e.units");
                UnitSet::read(units.as_bytes()).map_err(|error| error.to_string())
            })
            .expect("read");
        Experiments::new(&config, VARIANTS).expect("valid")
    };
    let (open, closed_to) = (compile(&text), load(&list));
    let mut kept = 0;
    for n in 0..1_000 {
        let unit = format!("u{n}");
        let (was, is) = (open.assign("home", &unit), closed_to.assign("home", &unit));
        if n < 500 || was.reason != Reason::Split {
            assert_eq!(is, was, "{unit}");
            kept += u32::from(is.reason == Reason::Split);
        } else {
            assert_eq!(
                (is.reason, is.variant, is.passed_over),
                (Reason::Paused, "plain", Some("e")),
                "{unit}"
            );
        }
    }
    assert!(kept > 200, "{kept}");
    assert_eq!(closed_to.list().next().and_then(|e| e.admitted), Some(500));
    // Who is in is part of what decides, however it was written down.
    let mut other_way = list.clone();
    other_way.reverse();
    assert_eq!(closed_to.digest(), load(&other_way).digest());
    assert_ne!(closed_to.digest(), load(&list[1..]).digest());
    assert_ne!(closed_to.digest(), open.digest());

    let refused = |config: &Config| Experiments::new(config, VARIANTS).expect_err("refused");
    let unread = Config::from_toml(&closed).expect("valid");
    assert_eq!(
        refused(&unread).to_string(),
        "experiment.e.admitted: `e.units` was not read"
    );
    let mut missing = unread.clone();
    let error = missing.load_intakes(&mut |_| Err("no such file".to_owned()));
    assert_eq!(
        error.expect_err("refused").to_string(),
        "experiment.e.admitted: no such file"
    );
    let mut dark = unread;
    for (_, experiment) in &mut dark.experiment.0 {
        experiment.kind = Kind::Shadow;
    }
    let error = refused(&dark).to_string();
    assert!(
        error.contains("experiment.e.admitted: is for kinds"),
        "{error}"
    );
}

#[test]
fn finer_buckets_move_nobody() {
    let text = one_experiment("e", 3_000, &[0.5, 0.5]);
    let coarse = compile(&text);
    let fine = compile(&text.replace(
        "epoch = 1\n[surface",
        "epoch = 1\nbuckets = 1000000\n[surface",
    ));
    assert_ne!(coarse.digest(), fine.digest());
    for i in 0..2_000 {
        let unit = format!("u{i}");
        assert_eq!(coarse.assign("", &unit), fine.assign("", &unit));
    }
}

#[test]
fn the_digest_follows_meaning_only() {
    let text = one_experiment("e", 3_000, &[0.5, 0.5]);
    let digest = compile(&text).digest().to_owned();
    assert_eq!(digest.len(), 64);
    assert_eq!(compile(&format!("# a comment\n{text}")).digest(), digest);
    assert_ne!(compile(&text.replace("3000", "3001")).digest(), digest);
    assert_ne!(
        compile(&text.replace("weight = 0.5", "weight = 0.6")).digest(),
        digest
    );
}

#[test]
fn refusals_say_where_and_what_is_allowed() {
    let good = one_experiment("e", 5_000, &[0.5, 0.5]);
    let second = one_experiment("f", 6_000, &[0.5, 0.5]);
    let second = &second[second.find("[experiment").expect("has one")..];
    let cases = [
        (
            format!("{good}{second}"),
            "layer.ranking: allocations add up to 11000 of 10000 basis points (e 5000 + f 6000); 1000 too many",
        ),
        (
            good.replace("5000", "10001"),
            "experiment.e.allocation_bp: 10001",
        ),
        (
            good.replace("variant = 'balanced'", "variant = 'bold'"),
            "experiment.e.arm[1].variant: variant `bold` is not declared; declared: `plain`, `balanced`",
        ),
        (
            good.replace("weight = 0.5", "weight = -1.0"),
            "experiment.e.arm[0].weight: weight -1",
        ),
        (
            good.replace("weight = 0.5", "weight = nan"),
            "experiment.e.arm[0].weight: weight NaN",
        ),
        (
            good.replace("weight = 0.5", "weight = 1e308"),
            "experiment.e.arm[1].weight",
        ),
        (
            good.replacen("weight = 0.5", "weight = 1e-9", 1),
            "experiment.e.arm[0].weight: weight 0.000000001 is less than a millionth",
        ),
        (
            good.replace("name = 'a1'", "name = 'a0'"),
            "another arm `a0`",
        ),
        (
            good.replace("name = 'a1'", "name = 'a|1'"),
            "experiment.e.arm[1].name",
        ),
        (
            good.replace("[surface.default]", "[surface.home]"),
            "surface.default is missing",
        ),
        (
            good.replace("epoch = 1\n[surface", "epoch = 1\nbuckets = 12\n[surface"),
            "layer.ranking.buckets: 12",
        ),
        (
            good.replace("layer = 'ranking'", "layer = 'rank'"),
            "surface.default.layer: layer `rank` is not declared; declared: `ranking`",
        ),
        (
            one_experiment("e", 5_000, &[1.0]),
            "experiment.e.arm: 1 given, ab needs at least 2",
        ),
        (
            one_experiment("e", 5_000, &[1.0; 33]),
            "experiment.e.arm: 33 are too many",
        ),
    ];
    for (text, expected) in cases {
        let config = Config::from_toml(&text).expect("well-formed");
        let message = Experiments::new(&config, VARIANTS)
            .expect_err(expected)
            .to_string();
        assert!(message.contains(expected), "{message:?} lacks {expected:?}");
    }
}

const SETUP: &str = "[layer.ranking]\nepoch = 1\n[layer.ranking.params.alpha]\ndefault = 0.0\nmin = 0.0\nmax = 1.0\n\
    [surface.default]\nlayer = 'ranking'\nvariant = 'plain'\nholdout_variant = 'balanced'\n\
    [attribute.country]\ntype = 'string'\n[attribute.minutes]\ntype = 'number'\npost_treatment = true\n";

fn experiment(name: &str, kind: &str, bp: u32, more: &str) -> String {
    format!(
        "[experiment.{name}]\nkind = '{kind}'\nlayer = 'ranking'\nepoch = 1\nallocation_bp = {bp}\n{more}\n\
         [[experiment.{name}.arm]]\nname = 'c'\nvariant = 'plain'\n\
         [[experiment.{name}.arm]]\nname = 't'\nvariant = 'balanced'\nparams = {{ alpha = 0.3 }}\n"
    )
}

fn refusal(text: &str) -> String {
    match Config::from_toml(text).and_then(|config| Experiments::new(&config, VARIANTS)) {
        Ok(_) => panic!("accepted: {text}"),
        Err(error) => error.to_string(),
    }
}

fn country(name: &str) -> HashMap<String, String> {
    HashMap::from([("country".to_owned(), name.to_owned())])
}

#[test]
fn the_first_step_that_decides_is_the_reason() {
    let force = "force = [{ unit = 'vip', arm = 't' }]";
    let text = format!(
        "{SETUP}{}",
        experiment(
            "e",
            "ab",
            10_000,
            &format!("targeting = 'country == \"SE\"'\n{force}")
        )
    );
    let open = compile(&text);
    let a = open.assign_with("home", "u1", &country("SE"));
    assert_eq!(
        (a.reason, a.experiment, a.allocation_bp),
        (Reason::Split, Some("e"), 10_000)
    );
    assert_eq!((a.weights, a.kind), (&[0.5_f32, 0.5][..], Some(Kind::Ab)));
    let a = open.assign("home", "u1");
    assert_eq!(
        (a.reason, a.experiment, a.variant),
        (Reason::Targeting, None, "plain")
    );
    assert_eq!(a.passed_over, Some("e"));
    let a = open.assign("home", "vip");
    assert_eq!(
        (a.reason, a.experiment, a.arm),
        (Reason::Forced, Some("e"), Some("t"))
    );

    let paused = compile(&text.replace(
        "epoch = 1\nallocation",
        "epoch = 1\npaused = true\nallocation",
    ));
    let a = paused.assign_with("home", "u1", &country("SE"));
    assert_eq!((a.reason, a.variant), (Reason::Paused, "plain"));

    let held = compile(&format!("[holdout.q1]\nepoch = 1\nshare_bp = 5000\n{text}"));
    let of = |unit: &str| held.assign_with("home", unit, &country("SE"));
    let unit = (0..100)
        .map(|i| format!("u{i}"))
        .find(|unit| held.holdout_of(unit) == Some(HoldoutGroup::Held));
    let a = of(&unit.expect("half of them"));
    assert_eq!(
        (a.reason, a.experiment, a.variant),
        (Reason::Holdout, None, "balanced")
    );
    // An override goes before the holdout.
    assert_eq!(of("vip").reason, Reason::Forced);

    let off = compile(&format!("[assignment]\nenabled = false\n{text}"));
    let a = off.assign_with("home", "vip", &country("SE"));
    assert_eq!((a.reason, a.variant), (Reason::Paused, "plain"));
}

#[test]
fn held_units_live_as_if_there_were_no_experiments() {
    let setup = SETUP.replace("holdout_variant = 'balanced'\n", "");
    let quiet = compile(&setup);
    let busy = compile(&format!(
        "[holdout.q1]\nepoch = 1\nshare_bp = 500\n{setup}{}{}{}",
        experiment("a", "ab", 4_000, ""),
        experiment("b", "interleave", 6_000, ""),
        experiment("s", "shadow", 10_000, "")
    ));
    let (mut held, mut slice) = (0_u32, 0_u32);
    for i in 0..20_000 {
        let unit = format!("u{i}");
        match busy.holdout_of(&unit) {
            Some(HoldoutGroup::Held) => {
                held += 1;
                let with = busy.assign("home", &unit);
                let without = quiet.assign("home", &unit);
                let same = Assignment {
                    reason: without.reason,
                    holdout: None,
                    holdouts: Memberships::default(),
                    ..with
                };
                assert_eq!(same, without);
                assert_eq!(busy.shadows("home", &unit, &()).count(), 0);
            }
            Some(HoldoutGroup::Slice) => slice += 1,
            None => {}
        }
    }
    // 5 % of 20,000 within five standard deviations.
    for count in [held, slice] {
        assert!((845..=1_155).contains(&count), "{count}");
    }
}

#[test]
fn kinds_do_with_their_units_what_they_say() {
    let text = format!(
        "{SETUP}{}{}{}",
        experiment("i", "interleave", 3_000, ""),
        experiment(
            "r",
            "rollout",
            7_000,
            "rollout = { on_inconclusive = 'hold' }"
        ),
        experiment("s", "shadow", 1_000, "")
    );
    let all = compile(&text);
    let (mut shadowed, n) = (0_u32, 20_000);
    for i in 0..n {
        let unit = format!("u{i}");
        let a = all.assign("home", &unit);
        match a.kind {
            Some(Kind::Interleave) => {
                assert_eq!(
                    (a.arm, a.contenders),
                    (Some(INTERLEAVED), Some(["plain", "balanced"]))
                );
                assert_eq!(a.probability, 1.0);
            }
            Some(Kind::Rollout) => assert_eq!((a.contenders, a.probability), (None, 0.5)),
            other => panic!("{other:?}: the layer is full"),
        }
        let dark: Vec<_> = all.shadows("home", &unit, &()).map(|s| s.variant).collect();
        assert!(dark.is_empty() || dark == ["plain", "balanced"], "{dark:?}");
        shadowed += u32::from(!dark.is_empty());
    }
    // A tenth within three standard errors.
    let off = f64::from(shadowed) - 0.1 * f64::from(n);
    assert!(off.abs() < 3.0 * (0.09 * f64::from(n)).sqrt(), "{shadowed}");
    assert_eq!(
        all.of_kind(Kind::Rollout).collect::<Vec<_>>(),
        [("r", 1, 7_000)]
    );
}

#[test]
fn parameters_follow_the_arm() {
    let all = compile(&format!("{SETUP}{}", experiment("e", "ab", 5_000, "")));
    let mut seen = HashSet::new();
    for i in 0..1_000 {
        let unit = format!("u{i}");
        let (value, a) = all.param("ranking", "alpha", &unit, &()).expect("declared");
        let expected = if a.arm == Some("t") { 0.3 } else { 0.0 };
        assert_eq!(value, &ParamValue::Number(expected));
        assert_eq!(a.arm, all.assign("home", &unit).arm);
        seen.insert(a.arm);
    }
    assert_eq!(seen.len(), 3);
    assert!(all.param("ranking", "beta", "u1", &()).is_none());
    assert_eq!(all.params().collect::<Vec<_>>(), [("ranking", "alpha")]);
}

#[test]
fn more_refusals_say_where() {
    for (text, expected) in [
        (
            experiment("e", "ab", 1, "targeting = 'city == 1'"),
            "experiment.e.targeting: attribute `city` is not declared; declared: `country`, `minutes`",
        ),
        (
            experiment("e", "ab", 1, "targeting = 'minutes > 1'"),
            "is `post_treatment`",
        ),
        (
            experiment("e", "ab", 1, "").replace("0.3", "1.3"),
            "experiment.e.arm[1].params.alpha: 1.3 is not 0 to 1",
        ),
        (
            experiment("e", "ab", 1, "").replace("0.3", "'x'"),
            "is not of the type of its default",
        ),
        (
            experiment("e", "ab", 1, "").replace("alpha", "beta"),
            "declares no parameter `beta`",
        ),
        (
            experiment("e", "ab", 1, "force = [{ unit = 'u', arm = 'x' }]"),
            "experiment.e.force[0].arm: there is no arm `x`; there are `c`, `t`",
        ),
        (
            experiment("e", "rollout", 1, ""),
            "experiment.e.rollout: is missing",
        ),
        (
            experiment(
                "e",
                "rollout",
                1,
                "rollout = { on_inconclusive = 'hold', steps_bp = [5, 5] }",
            ),
            "experiment.e.rollout.steps_bp",
        ),
        (
            experiment(
                "e",
                "rollout",
                1,
                "rollout = { on_inconclusive = 'hold', min_hold = '1 day' }",
            ),
            "experiment.e.rollout.min_hold",
        ),
        (
            experiment("e", "bandit", 1, ""),
            "unknown variant `bandit`, expected one of `ab`, `rollout`, `shadow`, `interleave`",
        ),
        (
            "[holdout.q]\nepoch = 1\nshare_bp = 5001\n".to_owned(),
            "holdout.q.share_bp: 5001 is not 0 to 5000",
        ),
        (
            "[layer.other]\nepoch = 1\nparams = { alpha = { default = 1 } }\n".to_owned(),
            "layer `other` has this parameter too",
        ),
    ] {
        let error = refusal(&format!("{SETUP}{text}"));
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[test]
fn a_ledger_says_who_holds_what() {
    let text = format!("{SETUP}{}", experiment("e", "ab", 2_000, ""));
    let config = Config::from_toml(&text).expect("valid");
    let digest = crate::arms_digest(config.experiment("e").expect("there"));
    let mut ledger = Ledger::default();
    let with = |text: &str, ledger: &Ledger| {
        Experiments::with_ledger(&Config::from_toml(text).expect("valid"), VARIANTS, ledger)
    };
    let nobody = with(&text, &ledger).expect("valid");
    assert!((0..500).all(|i| nobody.assign("", &format!("u{i}")).experiment.is_none()));

    let now = jiff::Timestamp::UNIX_EPOCH;
    ledger
        .allocate("ranking", 1, "e", 1, &digest, 2_000, "seed", now)
        .expect("fits");
    let some = with(&text, &ledger).expect("valid");
    ledger.ramp("e", 5_000, "more", now, false).expect("fits");
    let more = with(&text, &ledger).expect("valid");
    assert_ne!(some.digest(), more.digest());
    for i in 0..3_000 {
        let unit = format!("u{i}");
        let (was, is) = (some.assign("", &unit), more.assign("", &unit));
        let same = Assignment {
            allocation_bp: was.allocation_bp,
            ..is
        } == was;
        assert!(
            same || (was.experiment.is_none() && is.experiment == Some("e")),
            "{unit}"
        );
    }

    for (was, is, expected) in [
        (
            "name = 'c'",
            "name = 'c'\nweight = 2.0",
            "arms or weights are not those of epoch 1",
        ),
        (
            "epoch = 1\nallocation",
            "epoch = 2\nallocation",
            "experiment.e.epoch: the journal has epoch 1, the file 2",
        ),
        (
            "[layer.ranking]\nepoch = 1",
            "[layer.ranking]\nepoch = 3",
            "layer.ranking.epoch: the journal has epoch 1, the file 3",
        ),
    ] {
        let error = with(&text.replace(was, is), &ledger)
            .expect_err(expected)
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Names, kinds and declared shares of experiments that share a layer in the tests below.
const LEDGERED: [(&str, &str); 4] = [
    ("a", "ab"),
    ("b", "interleave"),
    ("c", "rollout"),
    ("d", "ab"),
];

/// All of them, on top of a holdout and a shadow.
fn ledgered() -> Config {
    let mut text = format!(
        "[holdout.q1]\nepoch = 1\nshare_bp = 1000\n{}{}",
        SETUP.replace("holdout_variant = 'balanced'\n", ""),
        experiment("s", "shadow", 10_000, "")
    );
    for (name, kind) in LEDGERED {
        let more = match kind {
            "rollout" => "rollout = { on_inconclusive = 'hold' }",
            _ => "",
        };
        text += &experiment(name, kind, 0, more);
    }
    Config::from_toml(&text).expect("well-formed")
}

/// One thing done to one of the experiments: its share, or `None` to end it.
fn history() -> impl Strategy<Value = Vec<(usize, Option<u32>)>> {
    let share = prop_oneof![4 => (0_u32..5_000).prop_map(Some), 1 => Just(None)];
    prop::collection::vec((0..LEDGERED.len(), share), 1..12)
}

/// The ledger after a history; what does not fit did not happen.
fn ledger_after(config: &Config, history: &[(usize, Option<u32>)]) -> Ledger {
    let (mut ledger, now) = (Ledger::default(), jiff::Timestamp::UNIX_EPOCH);
    for (step, (who, share)) in history.iter().enumerate() {
        let (name, seed) = (LEDGERED[*who].0, format!("step {step}"));
        let arms = crate::arms_digest(config.experiment(name).expect("declared"));
        let _ = match (share, ledger.holding(name).is_some()) {
            (Some(bp), true) => ledger.ramp(name, *bp, &seed, now, false),
            (Some(bp), false) => ledger.allocate("ranking", 1, name, 1, &arms, *bp, &seed, now),
            (None, _) => ledger.stop(name, None),
        };
    }
    ledger
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever the ledger says, held-out units get what they would get without any experiment, and
    /// everybody else is in the experiment that owns their basis point, or in none.
    #[test]
    fn held_units_know_nothing_of_any_ledger(history in history()) {
        let config = ledgered();
        let ledger = ledger_after(&config, &history);
        let busy = Experiments::with_ledger(&config, VARIANTS, &ledger).expect("valid");
        let quiet = Config { experiment: crate::Ordered::default(), ..config.clone() };
        let quiet = Experiments::new(&quiet, VARIANTS).expect("valid");
        let mut held = 0;
        for i in 0..2_000 {
            let unit = format!("u{i}");
            let with = busy.assign("home", &unit);
            if with.holdout == Some(HoldoutGroup::Held) {
                held += 1;
                prop_assert_eq!(with, quiet.assign("home", &unit));
                prop_assert_eq!(busy.shadows("home", &unit, &()).count(), 0);
                continue;
            }
            let basis_point = u16::try_from(with.bucket / 100).expect("below 10000");
            let owns = |name: &str| {
                ledger.holding(name).is_some_and(|holding| holding.drawn.contains(&basis_point))
            };
            let owners: Vec<&str> = LEDGERED.map(|(name, _)| name).into_iter().filter(|name| owns(name)).collect();
            prop_assert!(owners.len() <= 1, "{unit}: {owners:?}");
            prop_assert_eq!(with.experiment, owners.first().copied());
        }
        // A tenth within five standard deviations.
        prop_assert!((133..=267).contains(&held), "{held}");
    }

    /// From any ledger on, a ramp up adds units to its experiment and changes nothing for anyone else;
    /// the ramp back down is the ledger before, unit by unit.
    #[test]
    fn ramping_with_a_ledger_only_adds(history in history(), who in 0..LEDGERED.len(), more in 1_u32..4_000) {
        let config = ledgered();
        let (name, now) = (LEDGERED[who].0, jiff::Timestamp::UNIX_EPOCH);
        let mut ledger = ledger_after(&config, &history);
        let Some(from) = ledger.holding(name).map(crate::Holding::share_bp) else {
            return Ok(());
        };
        let compiled = |ledger: &Ledger| Experiments::with_ledger(&config, VARIANTS, ledger).expect("valid");
        let before = compiled(&ledger);
        let to = (from + more).min(from + ledger.free_bp("ranking", now));
        ledger.ramp(name, to, "more", now, false).expect("fits");
        let after = compiled(&ledger);
        ledger.ramp(name, from, "", now, false).expect("fits");
        let back = compiled(&ledger);
        let mut added = 0_u32;
        for i in 0..2_000 {
            let unit = format!("u{i}");
            let (was, is) = (before.assign("", &unit), after.assign("", &unit));
            let same = Assignment { allocation_bp: was.allocation_bp, ..is } == was;
            let joined = was.experiment.is_none() && is.experiment == Some(name);
            prop_assert!(same || joined, "{unit}: {was:?} {is:?}");
            added += u32::from(joined);
            prop_assert_eq!(was, back.assign("", &unit));
        }
        // As many as the share says, of those that are not held out, within five standard errors.
        let p = f64::from(to - from) / 10_000.0 * 0.9;
        let off = f64::from(added) - 2_000.0 * p;
        prop_assert!(off.abs() <= 5.0 * (2_000.0 * p * (1.0 - p)).sqrt() + 1.0, "{added} of {p}");
    }

    /// Ramping the last experiment up adds units and changes nothing for anyone else.
    #[test]
    fn ramping_only_adds(from in 0_u32..4_000, more in 0_u32..4_000) {
        let config = |bp| {
            let second = one_experiment("f", bp, &[0.3, 0.7]);
            let second = &second[second.find("[experiment").expect("has one")..];
            compile(&format!("{}{second}", one_experiment("e", 2_000, &[0.5, 0.5])))
        };
        let (before, after) = (config(from), config(from + more));
        for i in 0..500 {
            let unit = format!("u{i}");
            let (was, is) = (before.assign("", &unit), after.assign("", &unit));
            let same = Assignment { allocation_bp: was.allocation_bp, ..is } == was;
            prop_assert!(same || (was.experiment.is_none() && is.experiment == Some("f")));
        }
    }

    #[test]
    fn any_unit_is_assigned(surface in ".{0,40}", unit in ".{0,200}") {
        let a = compile(DEFAULT_TOML);
        let a = a.assign(&surface, &unit);
        prop_assert!(a.bucket < GRID && a.grid < GRID && VARIANTS.contains(&a.variant));
    }
}

fn compile(text: &str) -> Experiments {
    let config = Config::from_toml(text).expect("well-formed");
    Experiments::new(&config, VARIANTS).expect("valid")
}

/// One layer, one surface, and one experiment whose arms alternate between the two variants.
fn one_experiment(name: &str, allocation_bp: u32, weights: &[f64]) -> String {
    let mut text = format!(
        "[layer.ranking]\nepoch = 1\n[surface.default]\nlayer = 'ranking'\nvariant = 'plain'\n\
         [experiment.{name}]\nkind = 'ab'\nlayer = 'ranking'\nepoch = 1\n\
         allocation_bp = {allocation_bp}\n"
    );
    for (i, weight) in weights.iter().enumerate() {
        let variant = VARIANTS[i % 2];
        text += &format!(
            "[[experiment.{name}.arm]]\nname = 'a{i}'\nweight = {weight:?}\nvariant = '{variant}'\n"
        );
    }
    text
}

/// Each holdout draws by itself, and the log says which of them has a unit, where and since which epoch.
#[test]
fn holdouts_are_told_apart() {
    let all = compile(&format!(
        "[holdout.a]\nepoch = 3\nshare_bp = 2000\n[holdout.'b c']\nepoch = 7\nshare_bp = 2500\n{SETUP}"
    ));
    let mut counts = BTreeMap::new();
    for i in 0..20_000 {
        let unit = format!("u{i}");
        let a = all.assign("home", &unit);
        let text = a.holdouts.to_string();
        assert_eq!(a.holdout, all.holdout_of(&unit));
        assert_eq!(a.holdout == Some(HoldoutGroup::Held), text.contains("held"));
        assert_eq!(a.holdout.is_none(), text.is_empty());
        *counts.entry(text).or_insert(0_u32) += 1;
    }
    // Shares of the sides: 0.2, 0.2, 0.6 and 0.25, 0.25, 0.5.
    for (text, share) in [
        ("", 0.3),
        ("a|3|held", 0.1),
        ("a|3|slice", 0.1),
        ("b c|7|held", 0.15),
        ("b c|7|slice", 0.15),
        ("a|3|held||b c|7|held", 0.05),
        ("a|3|held||b c|7|slice", 0.05),
        ("a|3|slice||b c|7|held", 0.05),
        ("a|3|slice||b c|7|slice", 0.05),
    ] {
        let n: f64 = 20_000.0;
        let off = (f64::from(counts[text]) - n * share) / (n * share * (1.0 - share)).sqrt();
        assert!(off.abs() < 5.0, "{text}: {off}");
    }
    assert_eq!(counts.len(), 9, "{counts:?}");
}
