//! What was acknowledged to a listener survives SIGKILL at any moment: events, rules, their removal, revisions.
//!
//! Some rounds of a fraction of a second by default; `REFRAIN_KILL_SECONDS=600` kills every one to four seconds for
//! ten minutes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use refrain::v1::export_profile_response::Part;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain::v1::{
    AppendEventsRequest, CreateExclusionRequest, DeleteExclusionRequest, Event, EventKind,
    Exclusion, ExclusionScope, ExportProfileRequest, exclusion_scope::Scope,
};
use tonic::Status;
use tonic::transport::Channel;

use crate::support::{Catalogue, Server};

const WRITERS: u64 = 8;
const SHORT_ROUNDS: u64 = 8;
/// A writer goes on with its next listener after so many writes, so that profiles stay of a usual size.
const WRITES_A_LISTENER: u64 = 600;

type Taste = TasteProfileServiceClient<Channel>;

/// One thing that a client asks to be kept. The same one asked again changes nothing.
#[derive(Debug, Clone, Copy)]
enum Write {
    /// Two events: both or none.
    Append(u64),
    Create(u64),
    /// Of the rule that was created before it.
    Delete(u64),
}

impl Write {
    fn number(n: u64) -> Self {
        match n % 8 {
            5 | 6 => Self::Create(n),
            // Every second rule is taken back.
            7 => Self::Delete(n - 1),
            _ => Self::Append(n),
        }
    }

    /// The revision that holds it.
    async fn send(self, taste: &mut Taste, listener: &str) -> Result<u64, Status> {
        let user_id = listener.to_owned();
        Ok(match self {
            Self::Append(n) => {
                let events = event_ids(n).map(event).to_vec();
                let request = AppendEventsRequest { user_id, events };
                taste
                    .append_events(request)
                    .await?
                    .into_inner()
                    .profile_revision
            }
            Self::Create(n) => {
                let exclusion = Some(rule(n));
                let request = CreateExclusionRequest { user_id, exclusion };
                taste
                    .create_exclusion(request)
                    .await?
                    .into_inner()
                    .profile_revision
            }
            Self::Delete(n) => {
                let request = DeleteExclusionRequest {
                    user_id,
                    rule_id: rule_id(n),
                    allow_missing: true,
                };
                taste
                    .delete_exclusion(request)
                    .await?
                    .into_inner()
                    .profile_revision
            }
        })
    }
}

fn event_ids(n: u64) -> [String; 2] {
    [format!("{n}/a"), format!("{n}/b")]
}

fn event(event_id: String) -> Event {
    Event {
        item_id: format!("item-{event_id}"),
        event_id,
        kind: EventKind::Play.into(),
        event_time: Some(prost_types::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        }),
        ..Event::default()
    }
}

fn rule_id(n: u64) -> String {
    format!("rule-{n}")
}

fn rule(n: u64) -> Exclusion {
    Exclusion {
        rule_id: rule_id(n),
        scope: Some(ExclusionScope {
            scope: Some(Scope::ItemId(format!("item-{n}"))),
        }),
        ..Exclusion::default()
    }
}

/// A listener as its client knows it.
#[derive(Debug, Default, Clone, PartialEq)]
struct Profile {
    events: BTreeSet<String>,
    rules: BTreeSet<String>,
    revision: u64,
}

impl Profile {
    fn apply(&mut self, write: Write) {
        match write {
            Write::Append(n) => self.events.extend(event_ids(n)),
            Write::Create(n) => {
                self.rules.insert(rule_id(n));
            }
            Write::Delete(n) => {
                self.rules.remove(&rule_id(n));
            }
        }
    }

    /// All that the server has of a listener.
    async fn stored(taste: &mut Taste, listener: &str) -> Self {
        let request = ExportProfileRequest {
            user_id: listener.to_owned(),
            ..ExportProfileRequest::default()
        };
        let exported = taste.export_profile(request).await.expect("exports");
        let mut parts = exported.into_inner();
        let (mut profile, mut whole) = (Self::default(), false);
        while let Some(part) = parts.message().await.expect("a part") {
            match part.part.expect("set") {
                Part::Header(header) => profile.revision = header.profile_revision,
                Part::Events(part) => {
                    for event in part.events {
                        let id = event.event_id;
                        assert!(
                            profile.events.insert(id.clone()),
                            "{listener}: {id} is there twice"
                        );
                    }
                }
                Part::Exclusions(part) => {
                    for rule in part.exclusions {
                        let id = rule.rule_id;
                        assert!(
                            profile.rules.insert(id.clone()),
                            "{listener}: {id} is there twice"
                        );
                    }
                }
                Part::Footer(_) => whole = true,
            }
        }
        assert!(whole, "{listener}: the export has no end");
        profile
    }
}

/// One client: it writes to one listener after the other, and goes on where it was when the server is back.
struct Writer {
    name: u64,
    /// Number of its next write.
    next: u64,
    /// What it has acknowledged, by listener.
    acknowledged: BTreeMap<String, Profile>,
    /// What it sent without hearing of it.
    unsure: Option<Write>,
}

impl Writer {
    fn listener(&self) -> String {
        format!("{}-{}", self.name, self.next / WRITES_A_LISTENER)
    }

    /// Writes until the server is gone. What was unsure is sent again first.
    async fn write_until_it_dies(&mut self, taste: &mut Taste) {
        loop {
            let (listener, write) = (self.listener(), Write::number(self.next));
            self.unsure = Some(write);
            let Ok(revision) = write.send(taste, &listener).await else {
                return;
            };
            self.unsure = None;
            self.next += 1;
            let profile = self.acknowledged.entry(listener.clone()).or_default();
            profile.apply(write);
            assert!(
                revision >= profile.revision,
                "{listener}: revision {revision} came after {}",
                profile.revision
            );
            profile.revision = revision;
        }
    }

    /// Compares what is stored with what was acknowledged; `since`: only listeners from this one on.
    async fn check(&self, taste: &mut Taste, since: u64) {
        for number in since..=self.next / WRITES_A_LISTENER {
            let listener = format!("{}-{number}", self.name);
            let mut known = self
                .acknowledged
                .get(&listener)
                .cloned()
                .unwrap_or_default();
            let stored = Profile::stored(taste, &listener).await;
            assert!(
                stored.revision >= known.revision,
                "{listener}: revision {} was acknowledged, {} is stored",
                known.revision,
                stored.revision
            );
            let same =
                |known: &Profile| known.events == stored.events && known.rules == stored.rules;
            if same(&known) {
                continue;
            }
            // The last write may have become durable although nobody heard of it, then as a whole.
            if let Some(write) = self.unsure.filter(|_| listener == self.listener()) {
                known.apply(write);
            }
            assert!(
                same(&known),
                "{listener}: acknowledged {known:?}, stored {stored:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_when_the_server_is_killed() {
    let long = std::env::var("REFRAIN_KILL_SECONDS").ok();
    let long: Option<u64> = long.map(|text| text.parse().expect("seconds"));
    let began = Instant::now();
    let home = Catalogue::shared().store();
    let mut writers: Vec<Writer> = (0..WRITERS)
        .map(|name| Writer {
            name,
            next: 0,
            acknowledged: BTreeMap::new(),
            unsure: None,
        })
        .collect();
    let mut round = 0;
    loop {
        let server = Server::start(home.path());
        let done = match long {
            Some(seconds) => began.elapsed() >= Duration::from_secs(seconds),
            None => round == SHORT_ROUNDS,
        };
        let mut taste = server.taste().await;
        for writer in &writers {
            // All of it at the end; before, what this writer may have written since the last time.
            let last = writer.next.saturating_sub(WRITES_A_LISTENER * 20) / WRITES_A_LISTENER;
            writer.check(&mut taste, if done { 0 } else { last }).await;
        }
        if done {
            break;
        }
        // Different moments of a commit, the same in every run of the test.
        let lives = match long {
            Some(_) => Duration::from_millis(1_000 + round * 977 % 3_000),
            None => Duration::from_millis(120 + 37 * round),
        };
        let mut writing = tokio::task::JoinSet::new();
        for mut writer in writers.drain(..) {
            let mut taste = server.taste().await;
            writing.spawn(async move {
                writer.write_until_it_dies(&mut taste).await;
                writer
            });
        }
        tokio::time::sleep(lives).await;
        server.kill();
        writers = writing.join_all().await;
        round += 1;
    }
    let acknowledged: u64 = writers.iter().map(|writer| writer.next).sum();
    println!(
        "{acknowledged} writes acknowledged, {round} kills in {:.0?}",
        began.elapsed()
    );
    assert!(acknowledged > 100, "only {acknowledged} were acknowledged");
}
