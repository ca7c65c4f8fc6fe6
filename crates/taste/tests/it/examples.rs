//! The cases people ask about, by name.

use refrain_taste::{
    Action, Effect, Event, EventKind, Profile, Rule, Scope, Taste, Weights, resolve,
};

use crate::catalogue::Small;

fn event(id: &str, time_us: i64, kind: EventKind, item: &str, context: &str) -> Event {
    Event {
        event_id: id.to_owned(),
        item: item.to_owned(),
        time_us,
        kind,
        played_ms: None,
        context: (!context.is_empty()).then(|| context.to_owned()),
        session: None,
        count: 1,
    }
}

fn rule(id: &str, scope: Scope, action: Action, effect: Effect) -> Rule {
    Rule {
        rule_id: id.to_owned(),
        scope,
        strength: 1.0,
        effect,
        action,
        create_time_us: 100,
        expire_time_us: None,
        note: String::new(),
    }
}

fn context(name: &str) -> Scope {
    Scope::Context(name.to_owned())
}

fn item(name: &str) -> Scope {
    Scope::Item(name.to_owned())
}

fn taste(events: &[Event], rules: &[Rule]) -> Taste {
    let profile = Profile::new(1, events.to_vec(), rules.to_vec());
    resolve(&profile, 1_000, &Small::new(10), &Weights::default())
}

fn night() -> Vec<Event> {
    vec![
        event("e1", 1, EventKind::Play, "i1", "sleep"),
        event("e2", 2, EventKind::Play, "i2", "sleep"),
        event("e3", 3, EventKind::Play, "i1", "favourites"),
    ]
}

#[test]
fn a_track_of_an_excluded_playlist_still_counts_where_it_was_heard_elsewhere() {
    let rules = [rule("r", context("sleep"), Action::Exclude, Effect::Learn)];
    let taste = taste(&night(), &rules);
    assert_eq!(taste.evidence, [(1, 1.0)]);
    assert_eq!((taste.events_used, taste.events_excluded), (1, 2));
    assert_eq!(taste.heard, [1, 2], "what was heard stays heard");
    assert!(
        taste.forbidden.is_empty(),
        "not to learn from it is not to hide it"
    );
}

#[test]
fn an_inclusion_carves_an_item_out_of_an_excluded_playlist() {
    let rules = [
        rule("r2", context("sleep"), Action::Exclude, Effect::Both),
        rule("r1", item("i2"), Action::Include, Effect::Both),
    ];
    let taste = taste(&night(), &rules);
    assert_eq!(taste.evidence, [(1, 1.0), (2, 1.0)]);
    assert_eq!(taste.forbidden, [1]);
}

#[test]
fn among_rules_of_one_scope_the_newest_wins() {
    let older = rule("r9", context("sleep"), Action::Exclude, Effect::Both);
    let mut newer = rule("r1", context("sleep"), Action::Include, Effect::Both);
    newer.create_time_us += 1;
    assert_eq!(
        taste(&night(), &[newer.clone(), older.clone()]).events_excluded,
        0
    );
    newer.create_time_us -= 1;
    assert_eq!(
        taste(&night(), &[newer, older]).events_excluded,
        2,
        "then the greater id"
    );
}

#[test]
fn effects_do_not_outrank_each_other() {
    let rules = [
        rule("r1", context("sleep"), Action::Exclude, Effect::Learn),
        rule("r2", item("i2"), Action::Include, Effect::Serve),
    ];
    assert_eq!(taste(&night(), &rules).evidence, [(1, 1.0)]);
}

#[test]
fn strength_is_a_dial() {
    let mut dimmed = rule("r", context("sleep"), Action::Exclude, Effect::Learn);
    dimmed.strength = 0.75;
    assert_eq!(taste(&night(), &[dimmed]).evidence, [(1, 1.25), (2, 0.25)]);
}

#[test]
fn an_unlike_takes_back_the_likes_before_it_unless_it_is_excluded() {
    let events = [
        event("e1", 1, EventKind::Like, "i1", ""),
        event("e2", 2, EventKind::Unlike, "i1", "party"),
        event("e3", 3, EventKind::Like, "i1", ""),
        event("e4", 3, EventKind::Like, "i2", ""),
    ];
    let like = 5.0;
    assert_eq!(Weights::default().of(EventKind::Like), 5.0);
    assert_eq!(taste(&events, &[]).evidence, [(1, like), (2, like)]);
    let rules = [rule("r", context("party"), Action::Exclude, Effect::Learn)];
    assert_eq!(
        taste(&events, &rules).evidence,
        [(1, 2.0 * like), (2, like)]
    );
}

#[test]
fn a_window_is_half_open() {
    let window = Scope::Window {
        start_us: Some(2),
        end_us: Some(3),
    };
    let rules = [rule("r", window, Action::Exclude, Effect::Both)];
    let taste = taste(&night(), &rules);
    assert_eq!(taste.events_excluded, 1);
    assert_eq!(taste.forbidden, [2]);
}

#[test]
fn an_artist_and_an_unknown_item() {
    let events = [
        event("e1", 1, EventKind::Play, "i1", ""),
        event("e2", 2, EventKind::Play, "i77", ""),
    ];
    let rules = [rule(
        "r",
        Scope::Artist("a1".to_owned()),
        Action::Exclude,
        Effect::Both,
    )];
    let taste = taste(&events, &rules);
    assert!(taste.evidence.is_empty());
    assert_eq!((taste.events_excluded, taste.events_unknown), (1, 1));
    assert_eq!(taste.forbidden, [1, 4, 7]);
}
