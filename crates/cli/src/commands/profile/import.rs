//! `refrain profile import`: a listening log into the profiles of a running server.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use refrain::v1 as pb;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain_builder::ingest::Log;
use serde_json::json;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::client::{Client, Connection};
use crate::failure::{Exit, Failure};
use crate::ingest::{self, ReadArgs};
use crate::listens::{self, ByUser};
use crate::output::{self, Output, Progress};
use crate::parse;

/// Append a listening log to the profiles of a running server
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile import --listens plays.csv.gz
  refrain profile import --listens 2026-11.parquet --in-flight 64

Safe to repeat: an event that is there already changes nothing. In a log without times all events
get one instant, that of the file (or --at).")]
pub(crate) struct Args {
    /// Files of listens; repeat, or several
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    listens: Vec<PathBuf>,
    /// When it happened, in a log without times [default: when the first file was changed]
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    at: Option<Timestamp>,
    /// Requests in flight
    #[arg(long, value_name = "N", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    #[command(flatten)]
    read: ReadArgs,
}

/// Most events in one append.
pub(crate) const MAX_EVENTS: usize = 1_000;
/// How often an append that the server was too busy for is tried.
const ATTEMPTS: u32 = 8;

/// What an import did.
#[derive(Debug, Clone, Copy, Default)]
struct Imported {
    users: u64,
    appended: u64,
    duplicates: u64,
}

/// Runs `refrain profile import`.
pub(crate) fn run(args: &Args, connection: &Connection, output: &Output) -> anyhow::Result<Exit> {
    let started = Instant::now();
    let log = ingest::listens(&args.listens, &args.read.options()?, output)?;
    let unknown_time = match args.at {
        Some(at) => at,
        None => changed(&args.listens)?,
    };
    let imported = {
        let progress = output.progress("append events");
        connection.run(async |client| import(&log, unknown_time, args, &client, &progress).await)?
    };
    let took = started.elapsed();
    let document = json!({
        "users": imported.users,
        "appended": imported.appended,
        "duplicates": imported.duplicates,
        "seconds": took.as_secs_f64(),
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} events appended to {} profiles, {} were there already, in {}",
            output::count(imported.appended),
            output::count(imported.users),
            output::count(imported.duplicates),
            output::duration(took),
        ));
    });
    Ok(Exit::Done)
}

/// Appends all of a log, `in_flight` appends at a time. The appends of one listener follow one
/// another, so that an error names the first that failed.
async fn import(
    log: &Log,
    unknown_time: Timestamp,
    args: &Args,
    client: &Client,
    progress: &Progress,
) -> anyhow::Result<Imported> {
    let by_user = ByUser::new(log);
    let total = log.len() as u64;
    let mut imported = Imported::default();
    let mut waiting: JoinSet<Result<(u64, pb::AppendEventsResponse), Status>> = JoinSet::new();
    let mut queue: VecDeque<pb::AppendEventsRequest> = VecDeque::new();
    let mut done = 0;
    let mut users = (0_u32..).zip(log.users.iter()).peekable();
    loop {
        if queue.is_empty()
            && let Some((user, id)) = users.next()
        {
            imported.users += 1;
            let events = listens::events(log, by_user.rows(user), unknown_time);
            let requests = events.chunks(MAX_EVENTS);
            queue.extend(requests.map(|events| pb::AppendEventsRequest {
                user_id: id.to_owned(),
                events: events.to_vec(),
            }));
        }
        if let Some(request) = queue.pop_front() {
            waiting.spawn(append(client.channel.clone(), client.request(request)));
        } else if waiting.is_empty() {
            return Ok(imported);
        }
        if waiting.len() >= usize::from(args.in_flight)
            || queue.is_empty() && users.peek().is_none()
        {
            let Some(answer) = waiting.join_next().await else {
                continue;
            };
            let (events, answer) = answer?.map_err(|status| {
                client.refusal("append", &status).context(Failure::new(format!(
                    "the import stopped after {} events; repeat it, what is there is not added twice",
                    output::count(done)
                )))
            })?;
            imported.appended += u64::from(answer.appended);
            imported.duplicates += u64::from(answer.duplicates);
            done += events;
            progress.set(done, total);
        }
    }
}

/// Appends; waits and tries again while the server says that it is too busy.
async fn append(
    channel: Channel,
    request: tonic::Request<pb::AppendEventsRequest>,
) -> Result<(u64, pb::AppendEventsResponse), Status> {
    let (metadata, extensions, message) = request.into_parts();
    let events = message.events.len() as u64;
    let mut service = TasteProfileServiceClient::new(channel);
    let mut attempt = 0;
    loop {
        let again =
            tonic::Request::from_parts(metadata.clone(), extensions.clone(), message.clone());
        match service.append_events(again).await {
            Ok(answer) => return Ok((events, answer.into_inner())),
            Err(status) if status.code() == Code::Unavailable && attempt < ATTEMPTS => {
                attempt += 1;
                let asked = status
                    .get_details_retry_info()
                    .and_then(|info| info.retry_delay);
                let delay = asked.unwrap_or(Duration::from_millis(20)) * 2_u32.pow(attempt - 1);
                tokio::time::sleep(delay.min(Duration::from_secs(2))).await;
            }
            Err(status) => return Err(status),
        }
    }
}

/// When the first file was changed: an instant that stays when the import is repeated.
fn changed(paths: &[PathBuf]) -> anyhow::Result<Timestamp> {
    let Some(first) = paths.first() else {
        return Ok(Timestamp::now());
    };
    let changed = fs_err::metadata(first)?.modified()?;
    Ok(Timestamp::try_from(changed)?)
}
