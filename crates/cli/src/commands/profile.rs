//! `refrain profile`: what the server knows of a listener, and how it gets to know more.

use std::time::Instant;

use jiff::Timestamp;
use refrain::v1 as pb;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use serde_json::json;

use crate::client::{Client, Connection, Selector};
use crate::failure::Exit;
use crate::output::{self, Column, Output};
use crate::{parse, wire};

mod compact;
pub(crate) mod import;
mod transfer;

/// Taste profiles: show, append, import a log, export, load, erase, compact
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile show alice --events 20
  refrain profile append alice --item track-17 --kind like
  refrain profile import --listens plays.csv.gz
  refrain profile export alice --out alice.jsonl
  refrain profile erase alice --yes

Environment: REFRAIN_ADDR")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    Show(ShowArgs),
    Append(AppendArgs),
    Import(import::Args),
    Export(transfer::ExportArgs),
    Load(transfer::LoadArgs),
    Erase(transfer::EraseArgs),
    Rules(transfer::RulesArgs),
    Compact(compact::Args),
}

/// Runs `refrain profile`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    match &args.action {
        Action::Show(show_args) => show(show_args, &args.connection, output),
        Action::Append(append_args) => append(append_args, &args.connection, output),
        Action::Import(import_args) => import::run(import_args, &args.connection, output),
        Action::Export(export_args) => transfer::export(export_args, &args.connection, output),
        Action::Load(load_args) => transfer::load(load_args, &args.connection, output),
        Action::Erase(erase_args) => transfer::erase(erase_args, &args.connection, output),
        Action::Rules(rules_args) => transfer::rules(rules_args, &args.connection, output),
        Action::Compact(compact_args) => compact::run(compact_args, output),
    }
}

/// Show a profile: counts, the newest events and what the rules make of them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile show alice
  refrain profile show alice --events 50 --vector --json")]
struct ShowArgs {
    /// The listener
    #[arg(value_name = "USER")]
    user: String,
    /// How many of the newest events to show
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u32).range(0..=1000))]
    events: u32,
    /// Also the vector that the version folds the profile into
    #[arg(long)]
    vector: bool,
    /// Not older than this revision
    #[arg(long, value_name = "N", default_value_t = 0)]
    min_profile_revision: u64,
    #[command(flatten)]
    selector: Selector,
}

fn show(args: &ShowArgs, connection: &Connection, output: &Output) -> anyhow::Result<Exit> {
    let request = pb::GetProfileRequest {
        user_id: args.user.clone(),
        max_events: Some(args.events),
        include_vector: args.vector,
        index: args.selector.to_wire(),
        min_profile_revision: args.min_profile_revision,
    };
    let profile = connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.get_profile(client.request(request)).await;
        client.answer("show the profile", answer)
    })?;
    output.result(&wire::profile(&args.user, &profile), |output| {
        print(args, &profile, output)
    });
    Ok(Exit::Done)
}

fn print(args: &ShowArgs, profile: &pb::GetProfileResponse, output: &Output) {
    let user = output::clip(&args.user, 60);
    if profile.profile_revision == 0 && profile.events == 0 {
        output.line(format_args!("{user}: nothing is known of this listener"));
        return;
    }
    output.line(format_args!(
        "{user}: {} events of {} items, {} excluded by rules, {} rules in force, revision {}",
        output::count(profile.events),
        output::count(profile.items),
        output::count(profile.events_excluded),
        output::count(profile.exclusions),
        profile.profile_revision,
    ));
    if !profile.newest_events.is_empty() {
        output.table(&events_table(&profile.newest_events));
    }
    if let Some(vector) = &profile.vector {
        let values: Vec<String> = vector
            .values
            .iter()
            .map(|value| format!("{value:.4}"))
            .collect();
        output.line(format_args!(
            "vector in {}: {}",
            vector.model_version,
            values.join(" ")
        ));
    }
}

fn events_table(events: &[pb::ProfileEvent]) -> comfy_table::Table {
    let mut table = output::table(&[
        Column::Text("time"),
        Column::Text("item"),
        Column::Text("kind"),
        Column::Number("count"),
        Column::Text("context"),
        Column::Text("session"),
        Column::Number("weight"),
        Column::Text("rule"),
    ]);
    for entry in events {
        let event = entry.event.clone().unwrap_or_default();
        let at = wire::instant(event.event_time.as_ref());
        table.add_row([
            at.map_or_else(String::new, |at| {
                at.strftime("%Y-%m-%d %H:%M:%S").to_string()
            }),
            output::clip(&event.item_id, 40),
            wire::kind(&event),
            output::count(event.count.unwrap_or(1)),
            output::clip(&event.context, 30),
            output::clip(&event.session_id, 24),
            format!("{:.2}", entry.weight),
            output::clip(&entry.rule_id, 36),
        ]);
    }
    table
}

/// Add events of one kind to a profile
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile append alice --item track-17
  refrain profile append alice --item track-1 --item track-2 --context playlist:sleep
  refrain profile append alice --item track-17 --kind hide --event-id hide-17")]
struct AppendArgs {
    /// The listener
    #[arg(value_name = "USER")]
    user: String,
    /// An item; repeat
    #[arg(long = "item", value_name = "ITEM", required = true, num_args = 1)]
    items: Vec<String>,
    /// What happened
    #[arg(long, value_enum, default_value_t = Kind::Play)]
    kind: Kind,
    /// When [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse::instant)]
    time: Option<Timestamp>,
    /// How often
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    count: Option<u32>,
    /// How long it played
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..))]
    played_ms: Option<i64>,
    /// The playlist, album or station
    #[arg(long, value_name = "CONTEXT", default_value = "")]
    context: String,
    /// The listening session
    #[arg(long, value_name = "SESSION", default_value = "")]
    session: String,
    /// Of a private session: acknowledged, and nothing of it is stored
    #[arg(long)]
    private: bool,
    /// Id of the event, which makes the call safe to repeat; for one item
    #[arg(long, value_name = "ID")]
    event_id: Option<String>,
}

/// What happened.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Kind {
    Play,
    Complete,
    Skip,
    Like,
    Unlike,
    Save,
    Hide,
}

impl From<Kind> for pb::EventKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Play => Self::Play,
            Kind::Complete => Self::Complete,
            Kind::Skip => Self::Skip,
            Kind::Like => Self::Like,
            Kind::Unlike => Self::Unlike,
            Kind::Save => Self::Save,
            Kind::Hide => Self::Hide,
        }
    }
}

fn append(args: &AppendArgs, connection: &Connection, output: &Output) -> anyhow::Result<Exit> {
    if args.event_id.is_some() && args.items.len() > 1 {
        return Err(
            crate::failure::Failure::usage("an event id names one event")
                .next("give one --item, or leave out --event-id")
                .error(),
        );
    }
    let events = args
        .items
        .iter()
        .map(|item| pb::Event {
            event_id: args.event_id.clone().unwrap_or_default(),
            item_id: item.clone(),
            event_time: args.time.map(wire::wire_instant),
            kind: pb::EventKind::from(args.kind).into(),
            played_ms: args.played_ms,
            context: args.context.clone(),
            session_id: args.session.clone(),
            count: args.count,
            private: args.private,
        })
        .collect();
    let request = pb::AppendEventsRequest {
        user_id: args.user.clone(),
        events,
    };
    let (answer, took) = connection.run(async |client: Client| {
        let started = Instant::now();
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.append_events(client.request(request)).await;
        Ok((client.answer("append", answer)?, started.elapsed()))
    })?;
    let document = json!({
        "user_id": args.user,
        "profile_revision": answer.profile_revision,
        "appended": answer.appended,
        "duplicates": answer.duplicates,
        "event_ids": answer.event_ids,
        "private_skipped": answer.private_skipped,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} events appended, {} were there already; profile revision {}, in {}",
            answer.appended,
            answer.duplicates,
            answer.profile_revision,
            output::duration(took),
        ));
    });
    Ok(Exit::Done)
}
