//! Reads every response of a mixed load and looks for an item that a rule, the request or a takedown forbids. Meanwhile
//! versions are swapped and rolled back, and deltas bring an item, take items down and let them return.
//!
//! `REFRAIN_CHECK_REQUESTS` says how many requests, 2,000 by default; a million is for when it matters.
//! `REFRAIN_CHECK_SEED` makes another load of it, `REFRAIN_CHECK_TASKS` drives more listeners at a time, 4 tasks of 8
//! by default: a third of the requests wait for the disk, and those of many wait together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use refrain::v1::exclusion_scope::Scope;
use refrain::v1::recommend_request::Subject;
use refrain::v1::recommendation_service_client::RecommendationServiceClient;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain::v1::{
    AppendEventsRequest, Consistency, CreateExclusionRequest, DeleteExclusionRequest, Event,
    EventKind, Exclusion, ExclusionAction, ExclusionEffect, ExclusionScope, Filter,
    GetServingRequest, Ranking, RecommendRequest, Result as Shown, SearchParams, SeenPolicy,
};
use tonic::transport::Channel;

use crate::freshen::{document, first_listens};
use crate::support::{Catalogue, Server, arg, ok, publish};

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
    /// What requests leave out, the same for a while: so many that a server knows them again.
    left_out: BTreeSet<String>,
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

/// All items that answers of one version and delta showed.
type ShownBy = BTreeMap<(String, u64), BTreeSet<String>>;

struct Driver {
    random: Random,
    shown: ShownBy,
    recommend: RecommendationServiceClient<Channel>,
    taste: TasteProfileServiceClient<Channel>,
    violations: Arc<AtomicU64>,
    answers: Arc<AtomicU64>,
}

impl Driver {
    /// Whether an answer came from a delta that takes items down: any but the first of the `first` version.
    fn saw_a_takedown(&self, first: &str) -> bool {
        let mut seen = self.shown.keys();
        seen.any(|(version, delta)| *delta > u64::from(version == first))
    }

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
        if self.random.below(8) == 0 {
            let seen = listener.seen.iter().map(|shown| shown.item_id.clone());
            listener.left_out = seen
                .chain((0..150).map(|n| format!("absent-{n}")))
                .collect();
        }
        let none = BTreeSet::new();
        let left_out = [&none, &listener.left_out][self.random.below(2)];
        let filter = Filter {
            exclude_item_ids: left_out.iter().collect(),
            ..Filter::default()
        };
        let variants = ["", "plain", "balanced"];
        let variant = variants[self.random.below(3)];
        let seen = [SeenPolicy::Exclude, SeenPolicy::Allow][self.random.below(2)];
        let request = RecommendRequest {
            subject: Some(Subject::UserId(listener.user.clone())),
            filter: filter.into(),
            page_size: Some(1 + u32::try_from(self.random.below(60)).expect("small")),
            seen_policy: seen.into(),
            ranking: Some(Ranking {
                variant_override: variant.into(),
                surface: "home".into(),
                ..Ranking::default()
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
            .filter(|shown| listener.forbids(shown) || left_out.contains(&shown.item_id))
            .count();
        self.violations.fetch_add(bad as u64, Ordering::Relaxed);
        let served_by = answer.served_by.expect("told");
        let shown = self
            .shown
            .entry((served_by.version, served_by.delta))
            .or_default();
        for result in &answer.results {
            if !shown.contains(&result.item_id) {
                shown.insert(result.item_id.clone());
            }
        }
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

/// The operator's part: versions and deltas come and go while the load runs.
struct Operator {
    home: PathBuf,
    other: PathBuf,
    random: Random,
    /// What may be taken down.
    items: Vec<String>,
    /// What is taken down, by version.
    gone: BTreeMap<String, BTreeSet<String>>,
    /// What each delta forbids.
    forbidden: BTreeMap<(String, u64), BTreeSet<String>>,
    swaps: u64,
}

/// Deltas of a version: each is read with all before it, so that many would slow the check, not the server.
const MOST_DELTAS: u64 = 60;

impl Operator {
    fn store(&self) -> PathBuf {
        self.home.join("store")
    }

    /// Publishes a delta of what is stable and notes what it forbids.
    fn freshen(&mut self, args: &[&str], change: impl FnOnce(&mut BTreeSet<String>)) -> u64 {
        let store = self.store();
        let mut all = vec!["freshen", "--json", "--store", arg(&store)];
        all.extend(args);
        let report = document(&ok(all));
        let version = report["version"].as_str().expect("named").to_owned();
        let delta = report["delta"].as_u64().expect("a number");
        let gone = self.gone.entry(version.clone()).or_default();
        change(gone);
        self.forbidden.insert((version, delta), gone.clone());
        delta
    }

    /// One takedown, or the return of one that was taken down.
    fn take_down_or_restore(&mut self) -> u64 {
        let item = self.items[self.random.below(self.items.len())].clone();
        let gone = self.gone.values().any(|gone| gone.contains(&item));
        if !gone || self.random.below(3) > 0 {
            return self.freshen(&["--remove-item", &item], |gone| {
                gone.insert(item.clone());
            });
        }
        let file = self.home.join("returns.txt");
        fs_err::write(&file, format!("{item}\n")).expect("written");
        self.freshen(&["--restore", arg(&file)], |gone| {
            gone.remove(&item);
        })
    }

    /// Publishes the other version and goes back, with a takedown or a return on each.
    fn round(&mut self) {
        let freshen = |operator: &mut Self| {
            let deltas = operator.forbidden.len() as u64;
            if deltas < 2 * MOST_DELTAS {
                operator.take_down_or_restore();
            }
        };
        publish(&self.other, &self.store());
        freshen(self);
        ok([
            "rollback",
            "--store",
            arg(&self.store()),
            "--label",
            "stable",
        ]);
        freshen(self);
        self.swaps += 2;
    }

    fn bring_a_new_item(&mut self, log: &Path) {
        let listens = self.home.join("fresh.csv");
        first_listens(log, &self.items[0], "brand-new", &listens);
        let delta = self.freshen(&["--listens", arg(&listens)], |_| ());
        assert_eq!(delta, 1, "a new item is folded in");
    }

    /// How many items answers showed that the delta they name forbids.
    fn takedowns_shown(&self, shown: &ShownBy) -> usize {
        let shown = shown.iter().filter_map(|(served_by, items)| {
            let forbidden = self.forbidden.get(served_by)?;
            Some(items.intersection(forbidden).count())
        });
        shown.sum()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_a_mixed_load_holds_what_a_rule_or_takedown_forbids() {
    let requests = number("REFRAIN_CHECK_REQUESTS", 2_000);
    let seed = number("REFRAIN_CHECK_SEED", 0);
    let tasks = number("REFRAIN_CHECK_TASKS", 4);
    let catalogue = Catalogue::shared();
    let home = catalogue.store();
    let other = home.path().join("other");
    ok([
        "build",
        "--model",
        arg(&catalogue.model()),
        "--seed",
        "99",
        "--out",
        arg(&other),
    ]);
    let server = Server::start(home.path());
    let mut index = server.index().await;
    let serving = index.get_serving(GetServingRequest {});
    let first = serving.await.expect("told").into_inner().serving[0]
        .version
        .clone();
    let mut recommendations = server.recommendations().await;
    let popular = recommendations.recommend(RecommendRequest {
        subject: Some(Subject::UserId("nobody".into())),
        page_size: Some(60),
        ..RecommendRequest::default()
    });
    let popular = popular.await.expect("answered").into_inner().results;
    let mut operator = Operator {
        home: home.path().to_owned(),
        other,
        random: Random(seed + 1_000),
        items: popular.into_iter().map(|shown| shown.item_id).collect(),
        gone: BTreeMap::new(),
        forbidden: BTreeMap::new(),
        swaps: 0,
    };
    let (violations, answers) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let stop = Arc::new(AtomicBool::new(false));
    let operator = {
        let stop = Arc::clone(&stop);
        tokio::task::spawn_blocking(move || {
            operator.bring_a_new_item(&Catalogue::shared().listens());
            while !stop.load(Ordering::Relaxed) {
                operator.round();
            }
            operator
        })
    };
    let all_shown = Arc::new(Mutex::new(ShownBy::new()));
    let mut load = Vec::new();
    for task in 0..tasks {
        let channel = server.channel().await;
        let mut driver = Driver {
            random: Random(seed * tasks + task + 1),
            shown: ShownBy::new(),
            recommend: RecommendationServiceClient::new(channel.clone()),
            taste: TasteProfileServiceClient::new(channel),
            violations: Arc::clone(&violations),
            answers: Arc::clone(&answers),
        };
        let (all_shown, first) = (Arc::clone(&all_shown), first.clone());
        load.push(tokio::spawn(async move {
            let mut listeners: Vec<Listener> = (0..USERS_A_TASK)
                .map(|user| Listener {
                    user: format!("u{task}-{user}"),
                    revision: 0,
                    rules: Vec::new(),
                    events: 0,
                    seen: Vec::new(),
                    left_out: BTreeSet::new(),
                })
                .collect();
            // However fast the load is, it lasts until a takedown is in force.
            let patience = Instant::now() + Duration::from_secs(60);
            for n in 0.. {
                let enough = n >= requests / tasks;
                if enough && (driver.saw_a_takedown(&first) || Instant::now() > patience) {
                    break;
                }
                let at = driver.random.below(USERS_A_TASK);
                driver.step(&mut listeners[at]).await;
            }
            let mut all = all_shown.lock().expect("not poisoned");
            for (served_by, items) in driver.shown {
                all.entry(served_by).or_default().extend(items);
            }
        }));
    }
    for task in load {
        task.await.expect("no request fails");
    }
    stop.store(true, Ordering::Relaxed);
    let operator = operator.await.expect("swapped");
    let answers = answers.load(Ordering::Relaxed);
    let shown = all_shown.lock().expect("not poisoned");
    let versions: BTreeSet<&str> = shown.keys().map(|(version, _)| version.as_str()).collect();
    let with_takedowns = shown
        .keys()
        .filter(|served_by| {
            operator
                .forbidden
                .get(*served_by)
                .is_some_and(|gone| !gone.is_empty())
        })
        .count();
    eprintln!(
        "{requests} requests, {answers} answers read, {} changes of version, {} deltas; answers came from {} \
         versions and {} deltas, {with_takedowns} of them with takedowns",
        operator.swaps,
        operator.forbidden.len(),
        versions.len(),
        shown.len(),
    );
    assert_eq!(
        violations.load(Ordering::Relaxed),
        0,
        "of {answers} answers"
    );
    assert_eq!(operator.takedowns_shown(&shown), 0, "of {answers} answers");
    assert!(answers > requests / 2, "{answers}");
    assert!(with_takedowns > 0, "no takedown came into force");
}
