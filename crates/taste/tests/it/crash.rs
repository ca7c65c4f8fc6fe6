//! Kill -9 in the middle of appends: nothing acknowledged is lost, nothing comes twice.
//!
//! The child is this test binary again, which finds [`STORE`] in its environment. It prints one line
//! per acknowledgement; the parent kills it after a random number of lines and checks what is left.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use refrain_taste::{
    Action, Effect, Event, EventKind, ProfileStore, RedbStore, Rule, Scope, StoreOptions, Write,
};

const STORE: &str = "REFRAIN_TASTE_CRASH_STORE";
const ROUND: &str = "REFRAIN_TASTE_CRASH_ROUND";
const KILLS: u64 = 40;
const WRITERS: u64 = 4;

#[test]
fn what_was_acknowledged_survives_kills() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("profiles.redb");
    // Everything acknowledged so far: (user, id) and the revision it was acknowledged at.
    let mut acknowledged: BTreeMap<(String, String), u64> = BTreeMap::new();
    // A fixed sequence of moments (a linear congruential generator, upper bits).
    let mut state = 0x5eed_u64;
    for round in 0..KILLS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Some rounds end before the first acknowledgement, some even before the store is open.
        let lines = match round {
            0 => 0,
            _ => (state >> 33) % 120,
        };
        let mut child = spawn(&place, round);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        if round > 0 {
            // The test harness prints before the child does; what is not an acknowledgement is its.
            let ours = output
                .by_ref()
                .map(|line| line.unwrap())
                .filter(|line| is_ours(line));
            for line in ours.take(usize::try_from(lines).unwrap()) {
                note(&line, &mut acknowledged);
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it had printed when it died is acknowledged too; the last line may be torn.
        for line in output.map_while(Result::ok).filter(|line| is_ours(line)) {
            note(&line, &mut acknowledged);
        }
        check(&place, &acknowledged);
    }
    assert!(
        acknowledged.len() > 500,
        "only {} acknowledgements",
        acknowledged.len()
    );
}

/// The child's part: four writers append and make rules until they are killed.
#[test]
fn append_until_killed() {
    let (Ok(place), Ok(round)) = (std::env::var(STORE), std::env::var(ROUND)) else {
        // Not the child: this test is the body of a process that another test starts.
        return;
    };
    let store = Arc::new(RedbStore::open(Path::new(&place), &StoreOptions::default()).unwrap());
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (store, round) = (&store, &round);
            scope.spawn(move || {
                let user = format!("u{}", writer % 2);
                for n in 0.. {
                    let id = format!("{round}-{writer}-{n}");
                    let write = match n % 5 {
                        4 => Write::CreateRule {
                            user: user.clone(),
                            rule: rule(&id),
                        },
                        _ => Write::Append {
                            user: user.clone(),
                            events: pair(&id),
                        },
                    };
                    let receipt = store.write(write).unwrap();
                    let line = format!("ack {user} {id} {} .\n", receipt.revision);
                    std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
                }
            });
        }
    });
}

fn spawn(place: &Path, round: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "crash::append_until_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(STORE, place)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn is_ours(line: &str) -> bool {
    // The harness may print its own words before ours on the first line; a torn line has no stop.
    line.contains("ack ") && line.ends_with(" .")
}

fn note(line: &str, acknowledged: &mut BTreeMap<(String, String), u64>) {
    let (_, ours) = line.split_once("ack ").unwrap();
    let mut words = ours.split(' ');
    let mut word = || words.next().unwrap().to_owned();
    let (user, id, revision) = (word(), word(), word().parse().unwrap());
    assert_eq!(
        acknowledged.insert((user, id), revision),
        None,
        "acknowledged twice"
    );
}

/// Opens what the kill left and compares.
fn check(place: &Path, acknowledged: &BTreeMap<(String, String), u64>) {
    let store = RedbStore::open(place, &StoreOptions::default()).unwrap();
    for user in ["u0", "u1"] {
        let profile = store.profile(user).unwrap();
        let mut halves: BTreeMap<&str, u32> = BTreeMap::new();
        for event in &profile.events {
            let (write, _) = event.event_id.rsplit_once('/').unwrap();
            *halves.entry(write).or_default() += 1;
        }
        let rules: Vec<&str> = profile
            .rules
            .iter()
            .map(|rule| rule.rule_id.as_str())
            .collect();
        for (write, count) in &halves {
            assert_eq!(*count, 2, "{write}: an append happened by half");
        }
        let writes = (halves.len() + rules.len()) as u64;
        assert_eq!(
            profile.revision, writes,
            "one revision a write, neither lost nor twice"
        );
        for ((_, id), revision) in acknowledged.iter().filter(|((owner, _), _)| owner == user) {
            assert!(
                halves.contains_key(id.as_str()) || rules.contains(&id.as_str()),
                "lost {id}"
            );
            assert!(
                *revision <= profile.revision,
                "revision {revision} went back"
            );
        }
    }
}

fn pair(id: &str) -> Vec<Event> {
    let event = |half: u32| Event {
        event_id: format!("{id}/{half}"),
        item: format!("i{half}"),
        time_us: 1,
        kind: EventKind::Play,
        played_ms: None,
        context: Some("commute".to_owned()),
        session: None,
        count: 1,
    };
    vec![event(0), event(1)]
}

fn rule(id: &str) -> Rule {
    Rule {
        rule_id: id.to_owned(),
        scope: Scope::Item(id.to_owned()),
        strength: 1.0,
        effect: Effect::Both,
        action: Action::Exclude,
        create_time_us: 1,
        expire_time_us: None,
        note: String::new(),
    }
}
