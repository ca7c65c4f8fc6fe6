//! Reads every response of a mixed load and looks for an item that a rule forbids.
//!
//! `REFRAIN_CHECK_REQUESTS` says how many requests, 2,000 by default; a million is for when it matters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use refrain::v1::exclusion_scope::Scope;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain::v1::{
    AppendEventsRequest, Consistency, CreateExclusionRequest, DeleteExclusionRequest, Event,
    EventKind, Exclusion, ExclusionAction, ExclusionEffect, ExclusionScope, Ranking,
    RecommendRequest, Result as Shown, SearchParams, SeenPolicy,
};
use tonic::transport::Channel;

use crate::support::{Catalogue, Server, arg, ok, publish};

const TASKS: u64 = 4;
const USERS_A_TASK: usize = 8;

/// SplitMix64 (Steele, Lea and Flood, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % most as u64).expect("below most")
    }
}

/// A rule as the checker knows it; in the order in which they were made.
struct Made {
    id: String,
    scope: Scope,
    excludes: bool,
}

/// One listener, driven by one task: what is acknowledged is known.
struct Listener {
    user: String,
    revision: u64,
    rules: Vec<Made>,
    events: i64,
    seen: Vec<Shown>,
}

impl Listener {
    /// Whether a rule forbids an item: the most specific scope, then the newest.
    fn forbids(&self, shown: &Shown) -> bool {
        let newest = |covers: &dyn Fn(&Scope) -> bool| {
            let covering = self.rules.iter().rev();
            covering
                .filter(|rule| covers(&rule.scope))
                .map(|rule| rule.excludes)
                .next()
        };
        newest(&|scope| *scope == Scope::ItemId(shown.item_id.clone()))
            .or_else(|| newest(&|scope| *scope == Scope::Artist(shown.artist.clone())))
            .unwrap_or(false)
    }
}

struct Driver {
    random: Random,
    recommend: RecommendationServiceClient<Channel>,
    taste: TasteProfileServiceClient<Channel>,
    violations: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
}

impl Driver {
    async fn step(&mut self, listener: &mut Listener) {
        match self.random.below(100) {
            0..12 if !listener.seen.is_empty() => self.rule(listener, true).await,
            12..17 if !listener.rules.is_empty() => self.rule(listener, false).await,
            17..25 if !listener.rules.is_empty() => self.undo(listener).await,
            25..30 if !listener.seen.is_empty() => self.listen(listener).await,
            _ => self.read(listener).await,
        }
    }

    async fn read(&mut self, listener: &mut Listener) {
        let variants = ["", "plain", "balanced"];
        let variant = variants[self.random.below(3)];
        let seen = [SeenPolicy::Exclude, SeenPolicy::Allow][self.random.below(2)];
        let request = RecommendRequest {
            subject: Some(Subject::UserId(listener.user.clone())),
            page_size: Some(1 + u32::try_from(self.random.below(60)).expect("small")),
            seen_policy: seen.into(),
            ranking: Some(Ranking {
                variant_override: variant.into(),
                surface: "home".into(),
            }),
            search: Some(SearchParams {
                exact: self.random.below(20) == 0,
                ..SearchParams::default()
            }),
            consistency: Some(Consistency {
                min_profile_revision: listener.revision,
                ..Consistency::default()
            }),
            ..RecommendRequest::default()
        };
        let answer = self.recommend.recommend(request).await.expect("answered");
        let answer = answer.into_inner();
        let read = answer.profile.expect("read").revision;
        assert_eq!(
            read, listener.revision,
            "nobody else writes to {}",
            listener.user
        );
        let bad = answer
            .results
            .iter()
            .filter(|shown| listener.forbids(shown))
            .count();
        self.violations.fetch_add(bad as u64, Ordering::Relaxed);
        self.answers.fetch_add(1, Ordering::Relaxed);
        if !answer.results.is_empty() {
            listener.seen = answer.results;
        }
    }

    /// Excludes something that was just shown, or carves out of what is excluded.
    async fn rule(&mut self, listener: &mut Listener, excludes: bool) {
        let shown = &listener.seen[self.random.below(listener.seen.len())];
        let by_artist = self.random.below(3) == 0 && !shown.artist.is_empty();
        let scope = match by_artist {
            true => Scope::Artist(shown.artist.clone()),
            false => Scope::ItemId(shown.item_id.clone()),
        };
        let id = format!("r{}", listener.revision);
        let effect = [ExclusionEffect::Serve, ExclusionEffect::Both][self.random.below(2)];
        let action = match excludes {
            true => ExclusionAction::Exclude,
            false => ExclusionAction::Include,
        };
        let request = CreateExclusionRequest {
            user_id: listener.user.clone(),
            exclusion: Some(Exclusion {
                rule_id: id.clone(),
                scope: Some(ExclusionScope {
                    scope: Some(scope.clone()),
                }),
                effect: effect.into(),
                action: action.into(),
                ..Exclusion::default()
            }),
        };
        let made = self.taste.create_exclusion(request).await.expect("made");
        listener.revision = made.into_inner().profile_revision;
        listener.rules.push(Made {
            id,
            scope,
            excludes,
        });
    }

    async fn undo(&mut self, listener: &mut Listener) {
        let at = self.random.below(listener.rules.len());
        let request = DeleteExclusionRequest {
            user_id: listener.user.clone(),
            rule_id: listener.rules.remove(at).id,
            allow_missing: false,
        };
        let gone = self.taste.delete_exclusion(request).await.expect("deleted");
        listener.revision = gone.into_inner().profile_revision;
    }

    async fn listen(&mut self, listener: &mut Listener) {
        listener.events += 1;
        let shown = &listener.seen[self.random.below(listener.seen.len())];
        let request = AppendEventsRequest {
            user_id: listener.user.clone(),
            events: vec![Event {
                item_id: shown.item_id.clone(),
                event_time: Some(prost_types::Timestamp {
                    seconds: 1_700_000_000 + listener.events,
                    nanos: 0,
                }),
                kind: EventKind::Play.into(),
                ..Event::default()
            }],
        };
        let done = self.taste.append_events(request).await.expect("appended");
        listener.revision = done.into_inner().profile_revision;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_mixed_load_holds_what_a_rule_forbids() {
    let requests: u64 = std::env::var("REFRAIN_CHECK_REQUESTS")
        .map_or(2_000, |count| count.parse().expect("a number"));
    let home = Catalogue::shared().store();
    let store = home.path().join("store");
    let other = home.path().join("other");
    ok([
        "build",
        "--model",
        arg(&Catalogue::shared().model()),
        "--seed",
        "99",
        "--out",
        arg(&other),
    ]);
    let server = Server::start(home.path());
    let (violations, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    // Versions change all the while: a publish, then the label back and forth.
    let swaps = {
        let (stop, store) = (Arc::clone(&stop), store.clone());
        tokio::task::spawn_blocking(move || {
            let mut swaps = 0;
            while !stop.load(Ordering::Relaxed) {
                publish(&other, &store);
                ok(["rollback", "--store", arg(&store), "--label", "stable"]);
                swaps += 2;
            }
            swaps
        })
    };
    let mut load = Vec::new();
    for task in 0..TASKS {
        let channel = server.channel().await;
        let mut driver = Driver {
            random: Random(task + 1),
            recommend: RecommendationServiceClient::new(channel.clone()),
            taste: TasteProfileServiceClient::new(channel),
            violations: Arc::clone(&violations),
            answers: Arc::clone(&answers),
        };
        load.push(tokio::spawn(async move {
            let mut listeners: Vec<Listener> = (0..USERS_A_TASK)
                .map(|user| Listener {
                    user: format!("u{task}-{user}"),
                    revision: 0,
                    rules: Vec::new(),
                    events: 0,
                    seen: Vec::new(),
                })
                .collect();
            for _ in 0..requests / TASKS {
                let at = driver.random.below(USERS_A_TASK);
                driver.step(&mut listeners[at]).await;
            }
        }));
    }
    for task in load {
        task.await.expect("no request fails");
    }
    stop.store(true, Ordering::Relaxed);
    let swaps = swaps.await.expect("swapped");
    let answers = answers.load(Ordering::Relaxed);
    eprintln!("{requests} requests, {answers} answers read, {swaps} changes of version");
    assert_eq!(
        violations.load(Ordering::Relaxed),
        0,
        "of {answers} answers"
    );
    assert!(answers > requests / 2, "{answers}");
}
