//! What an experiment makes of an answer, and what it leaves alone.

use std::collections::BTreeMap;

use refrain_engine::{Answer, Choice, Policy, Request, Scratch, Subject, interleave};
use refrain_experiments::{Config, HoldoutGroup, Ordered};
use refrain_ranking::Variants;
use refrain_taste::{Profile, Weights};

use crate::fixture::{NOW_US, answer, id, music_version, ordinals, play};

const VARIANTS: &str = "
[parameter.weight]
type = 'number'
unit = 'score'
min = 0
max = 5
default = 0
[variant.plain]
score = 'similarity'
[variant.blend]
score = 'similarity + weight * popularity'
[variant.spread]
score = 'similarity + popularity'
max_per_artist = 1
";

const EXPERIMENTS: &str = "
[holdout.q1]
epoch = 1
share_bp = 2000
[layer.ranking]
epoch = 1
[layer.ranking.params.weight]
default = 0.0
min = 0
max = 5
[layer.mixing]
epoch = 1
[surface.default]
layer = 'ranking'
variant = 'plain'
[surface.mixed]
layer = 'mixing'
variant = 'plain'
[experiment.weigh]
kind = 'ab'
layer = 'ranking'
epoch = 1
allocation_bp = 10000
[[experiment.weigh.arm]]
name = 'none'
variant = 'blend'
[[experiment.weigh.arm]]
name = 'little'
variant = 'blend'
params = { weight = 0.5 }
[[experiment.weigh.arm]]
name = 'much'
variant = 'blend'
params = { weight = 5.0 }
[experiment.mix]
kind = 'interleave'
layer = 'mixing'
epoch = 1
allocation_bp = 10000
[[experiment.mix.arm]]
name = 'plain'
variant = 'plain'
[[experiment.mix.arm]]
name = 'spread'
variant = 'spread'
";

fn listener() -> Profile {
    let events = (0..12)
        .map(|n: u32| play(n.into(), &id(1 + 4 * n), "a playlist"))
        .collect();
    Profile::new(1, events, Vec::new())
}

fn policy(experiments: &Config) -> Policy {
    Policy::new(Variants::from_toml(VARIANTS).expect("valid"), experiments).expect("valid")
}

/// The answer to one and the same profile as the choice says.
fn answered(policy: &Policy, choice: &Choice<'_>, profile: &Profile) -> Answer {
    let request = Request::new(Subject::Profile { profile }, 10, NOW_US);
    let Some([_, second]) = choice.assignment.contenders else {
        return answer(music_version(), &request, choice.variant);
    };
    let second = policy.variants().get(second).expect("declared");
    let both = [choice.variant, second];
    let weights = Weights::default();
    interleave(
        music_version(),
        &request,
        both,
        &weights,
        &mut Scratch::default(),
    )
    .expect("answers")
}

/// Three arms of one variant that differ in a parameter alone give three lists; the arm that leaves the
/// parameter at its default gives the variant's own.
#[test]
fn arms_that_differ_in_a_parameter_answer_differently() {
    let (policy, profile) = (
        policy(&Config::from_toml(EXPERIMENTS).expect("well-formed")),
        listener(),
    );
    let mut lists = BTreeMap::new();
    for unit in 0..200 {
        let choice = policy.choose("", &format!("u{unit}"), None);
        let choice = choice.expect("declared");
        if let Some(arm) = choice.assignment.arm {
            let list = ordinals(&answered(&policy, &choice, &profile));
            let seen = lists.entry(arm).or_insert_with(|| list.clone());
            assert_eq!(*seen, list, "{unit}");
        }
    }
    assert_eq!(lists.len(), 3);
    let named = policy.choose("", "", Some("blend")).expect("declared");
    let own = ordinals(&answered(&policy, &named, &profile));
    assert_eq!(lists["none"], own);
    assert_ne!(lists["little"], own);
    assert_ne!(lists["much"], own);
    assert_ne!(lists["much"], lists["little"]);
}

/// Held-out listeners get, on every surface, what they would get from a server without experiments.
#[test]
fn held_listeners_are_answered_as_without_experiments() {
    let config = Config::from_toml(EXPERIMENTS).expect("well-formed");
    let mut without = config.clone();
    (without.experiment, without.holdout) = (Ordered::default(), BTreeMap::new());
    let (busy, quiet, profile) = (policy(&config), policy(&without), listener());
    let (mut held, mut changed) = (0, 0);
    for unit in 0..300 {
        let unit = format!("u{unit}");
        for surface in ["", "mixed"] {
            let [with, without] = [&busy, &quiet].map(|policy| {
                let choice = policy.choose(surface, &unit, None).expect("declared");
                (
                    choice.assignment.holdout,
                    answered(policy, &choice, &profile),
                )
            });
            if with.0 == Some(HoldoutGroup::Held) {
                held += 1;
                assert_eq!(with.1, without.1, "{unit}");
            } else {
                changed += u32::from(with.1 != without.1);
            }
        }
    }
    assert!(held > 60 && changed > 250, "{held} held, {changed} changed");
}
