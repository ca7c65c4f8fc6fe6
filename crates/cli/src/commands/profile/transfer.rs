//! `refrain profile export`, `load`, `erase` and `rules`: taking profiles out, in, and away.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};

use refrain::v1 as pb;
use refrain::v1::exclusion_scope::Scope;
use refrain::v1::export_profile_response::Part;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use serde_json::{Value, json};

use super::import::MAX_EVENTS;
use crate::client::{Client, Connection};
use crate::failure::{Exit, Failure};
use crate::output::{self, Output};
use crate::wire;

/// Write all that is stored of a listener, as lines of JSON
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile export alice --out alice.jsonl
  refrain profile export alice --out - | jq -c 'select(.exclusion)'

A header, a line for every event and rule, and a footer: a file without its footer is not whole.")]
pub(super) struct ExportArgs {
    /// The listener
    #[arg(value_name = "USER")]
    user: String,
    /// Where to; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
}

/// Add what an export holds to a profile: events and rules that are there already change nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile load alice.jsonl
  refrain profile load alice.jsonl --as alice-2")]
pub(super) struct LoadArgs {
    /// What `profile export` wrote
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The listener, instead of the one that was exported
    #[arg(long = "as", value_name = "USER")]
    user: Option<String>,
}

/// Remove all that is stored of a listener, for good
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile export alice --out alice.jsonl && refrain profile erase alice --yes

Prints what was removed and that reading the store again finds nothing. Logs that you train from are
yours: take the listener out of them, too.")]
pub(super) struct EraseArgs {
    /// The listener
    #[arg(value_name = "USER")]
    user: String,
    /// Really: there is no undo
    #[arg(long)]
    yes: bool,
    /// It is fine when nothing is stored
    #[arg(long)]
    allow_missing: bool,
}

/// Write the rules of all listeners, for `refrain train --exclusions`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain profile rules --out rules.csv && refrain train --listens plays.csv --exclusions rules.csv --out model

Every rule that was acknowledged before the watermark, which is in every row, is there.")]
pub(super) struct RulesArgs {
    /// Where to
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(super) fn export(
    args: &ExportArgs,
    connection: &Connection,
    output: &Output,
) -> anyhow::Result<Exit> {
    let request = pb::ExportProfileRequest {
        user_id: args.user.clone(),
        min_profile_revision: 0,
    };
    let mut lines: Vec<Value> = Vec::new();
    let mut header = pb::ExportHeader::default();
    connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.export_profile(client.request(request)).await;
        let mut parts = client.answer("export", answer)?;
        let mut whole = false;
        loop {
            let part = parts.message().await;
            let part = part.map_err(|status| client.refusal("export", &status))?;
            match part.and_then(|part| part.part) {
                None if whole => return Ok(()),
                None => return Err(Failure::new("the export ended early").error()),
                Some(Part::Header(told)) => {
                    lines.push(json!({ "profile": {
                        "user_id": told.user_id,
                        "profile_revision": told.profile_revision,
                        "events": told.events,
                        "exclusions": told.exclusions,
                        "export_time": wire::instant(told.export_time.as_ref()).map(|at| at.to_string()),
                    }}));
                    header = told;
                }
                Some(Part::Events(part)) => {
                    let events = part.events.iter();
                    lines.extend(events.map(|event| json!({ "event": wire::event(event) })));
                }
                Some(Part::Exclusions(part)) => {
                    let rules = part.exclusions.iter();
                    lines.extend(rules.map(|rule| json!({ "exclusion": wire::exclusion(rule) })));
                }
                Some(Part::Footer(footer)) => {
                    lines.push(json!({ "end": { "checksum": footer.checksum } }));
                    whole = true;
                }
            }
        }
    })?;
    if args.out.as_os_str() == "-" {
        if output.is_json() {
            output.document(&lines);
        } else {
            lines.iter().for_each(|line| output.line(line));
        }
        return Ok(Exit::Done);
    }
    write_whole(&args.out, |file| {
        lines.iter().try_for_each(|line| writeln!(file, "{line}"))
    })?;
    let document = json!({
        "user_id": args.user,
        "profile_revision": header.profile_revision,
        "events": header.events,
        "exclusions": header.exclusions,
        "out": args.out,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} events and {} rules of {} in {}",
            output::count(header.events),
            output::count(header.exclusions),
            output::clip(&args.user, 60),
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}

pub(super) fn load(
    args: &LoadArgs,
    connection: &Connection,
    output: &Output,
) -> anyhow::Result<Exit> {
    let exported = Exported::read(&args.file)?;
    let user = args.user.clone().unwrap_or(exported.user);
    let (rules, chunks) = (exported.rules, exported.events);
    let (appended, duplicates, made) = connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let (mut appended, mut duplicates, mut made) = (0u64, 0u64, 0u64);
        for events in chunks.chunks(MAX_EVENTS) {
            let request = pb::AppendEventsRequest {
                user_id: user.clone(),
                events: events.to_vec(),
            };
            let answer = service.append_events(client.request(request)).await;
            let answer = client.answer("load events", answer)?;
            appended += u64::from(answer.appended);
            duplicates += u64::from(answer.duplicates);
        }
        for rule in rules {
            let request = pb::CreateExclusionRequest {
                user_id: user.clone(),
                exclusion: Some(rule),
            };
            let answer = service.create_exclusion(client.request(request)).await;
            client.answer("load a rule", answer)?;
            made += 1;
        }
        Ok((appended, duplicates, made))
    })?;
    let document = json!({
        "user_id": user, "appended": appended, "duplicates": duplicates, "exclusions": made,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{}: {} events appended, {} were there already; {} rules",
            output::clip(&user, 60),
            output::count(appended),
            output::count(duplicates),
            output::count(made),
        ));
    });
    Ok(Exit::Done)
}

pub(super) fn erase(
    args: &EraseArgs,
    connection: &Connection,
    output: &Output,
) -> anyhow::Result<Exit> {
    if !args.yes {
        let all = format!("everything stored of {} would be gone for good", args.user);
        return Err(Failure::usage(all)
            .next("add --yes; `refrain profile export` keeps a copy")
            .error());
    }
    let request = pb::DeleteProfileRequest {
        user_id: args.user.clone(),
        allow_missing: args.allow_missing,
    };
    let answer = connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.delete_profile(client.request(request)).await;
        client.answer("erase", answer)
    })?;
    let erased = wire::instant(answer.erase_time.as_ref()).map(|at| at.to_string());
    let document = json!({
        "user_id": args.user,
        "existed": answer.existed,
        "events_erased": answer.events_erased,
        "exclusions_erased": answer.exclusions_erased,
        "last_revision": answer.last_revision,
        "erase_time": erased,
        "residual_records": answer.residual_records,
        "residual_space": answer.residual_space,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "{}: {} events and {} rules erased; reading the store again finds {} records",
            output::clip(&args.user, 60),
            output::count(answer.events_erased),
            output::count(answer.exclusions_erased),
            answer.residual_records,
        ));
        if answer.residual_space {
            output.line(
                "unused space of the file may hold copies until `refrain profile compact` (PostgreSQL: VACUUM)",
            );
        }
    });
    Ok(Exit::Done)
}

pub(super) fn rules(
    args: &RulesArgs,
    connection: &Connection,
    output: &Output,
) -> anyhow::Result<Exit> {
    let mut rows: Vec<[String; 7]> = Vec::new();
    let mut watermark = String::new();
    connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let request = client.request(pb::ExportExclusionsRequest {});
        let mut parts = client.answer("export rules", service.export_exclusions(request).await)?;
        while let Some(part) = parts
            .message()
            .await
            .map_err(|status| client.refusal("export rules", &status))?
        {
            let at = wire::instant(part.watermark.as_ref());
            watermark = at.map_or_else(String::new, |at| at.to_string());
            for listener in &part.listeners {
                let learning = listener
                    .exclusions
                    .iter()
                    .filter(|rule| rule.effect() != pb::ExclusionEffect::Serve);
                rows.extend(learning.filter_map(|rule| row(&listener.user_id, rule, &watermark)));
            }
        }
        Ok(())
    })?;
    write_whole(&args.out, |file| {
        writeln!(file, "user,scope,value,strength,action,created,watermark")?;
        rows.iter().try_for_each(|row| {
            let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
            writeln!(file, "{}", cells.join(","))
        })
    })?;
    let document = json!({ "rules": rows.len(), "watermark": watermark, "out": args.out });
    output.result(&document, |output| {
        output.line(format_args!(
            "{} rules in {}, complete up to {watermark}",
            output::count(rows.len() as u64),
            args.out.display()
        ));
    });
    Ok(Exit::Done)
}

fn row(user: &str, rule: &pb::Exclusion, watermark: &str) -> Option<[String; 7]> {
    let text = |at: Option<&prost_types::Timestamp>| {
        wire::instant(at).map_or_else(String::new, |at| at.to_string())
    };
    let (scope, value) = match rule.scope.as_ref()?.scope.as_ref()? {
        Scope::ItemId(id) => ("item", id.clone()),
        Scope::Context(id) => ("context", id.clone()),
        Scope::SessionId(id) => ("session", id.clone()),
        Scope::Artist(id) => ("artist", id.clone()),
        Scope::Tag(id) => ("tag", id.clone()),
        Scope::Window(window) => {
            let (start, end) = (
                text(window.start_time.as_ref()),
                text(window.end_time.as_ref()),
            );
            ("window", format!("{start}/{end}"))
        }
    };
    // An exclusion of strength 0 leaves everything, which is what a carve-out does.
    let nothing = rule.strength == Some(0.0);
    let action = match rule.action() {
        pb::ExclusionAction::Exclude | pb::ExclusionAction::Unspecified if !nothing => "exclude",
        _ => "include",
    };
    Some([
        user.to_owned(),
        scope.to_owned(),
        value,
        rule.strength
            .filter(|_| !nothing)
            .unwrap_or(1.0)
            .to_string(),
        action.to_owned(),
        text(rule.create_time.as_ref()),
        watermark.to_owned(),
    ])
}

/// A cell of RFC 4180.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// Makes a file appear whole or not at all.
fn write_whole(
    path: &Path,
    write: impl FnOnce(&mut std::io::BufWriter<&mut tempfile::NamedTempFile>) -> std::io::Result<()>,
) -> anyhow::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let failed = || Failure::new(format!("cannot write {}", path.display()));
    let mut file = tempfile::NamedTempFile::new_in(parent.unwrap_or(Path::new(".")))
        .map_err(|error| anyhow::Error::new(error).context(failed()))?;
    let mut buffer = std::io::BufWriter::new(&mut file);
    write(&mut buffer)
        .and_then(|()| buffer.flush())
        .map_err(|error| anyhow::Error::new(error).context(failed()))?;
    drop(buffer);
    file.as_file().sync_all()?;
    file.persist(path)
        .map_err(|error| anyhow::Error::new(error.error).context(failed()))?;
    Ok(())
}

/// What an export holds.
#[derive(Debug, Default)]
struct Exported {
    user: String,
    events: Vec<pb::Event>,
    rules: Vec<pb::Exclusion>,
}

impl Exported {
    /// Reads all of it before anything is sent: a file that is not whole changes nothing.
    fn read(path: &Path) -> anyhow::Result<Self> {
        let file = std::io::BufReader::new(fs_err::File::open(path)?);
        let mut exported = Self::default();
        let mut whole = false;
        for (number, line) in (1..).zip(file.lines()) {
            let bad = |what: &str| {
                Failure::new(format!("{}, line {number}: {what}", path.display()))
                    .next("give a file that `refrain profile export` wrote")
                    .error()
            };
            let line = line?;
            let value: Value =
                serde_json::from_str(&line).map_err(|error| bad(&error.to_string()))?;
            if let Some(profile) = value.get("profile") {
                exported.user = text(profile, "user_id");
            } else if let Some(event) = value.get("event") {
                exported
                    .events
                    .push(wire::event_from(event).map_err(|error| bad(&error))?);
            } else if let Some(rule) = value.get("exclusion") {
                exported
                    .rules
                    .push(wire::exclusion_from(rule).map_err(|error| bad(&error))?);
            } else if value.get("end").is_some() {
                whole = true;
            } else {
                return Err(bad("is neither profile, event, exclusion nor end"));
            }
        }
        if !whole || exported.user.is_empty() {
            let cut = format!(
                "{}: it has no end, so some of it is missing",
                path.display()
            );
            return Err(Failure::new(cut).next("export again").error());
        }
        Ok(exported)
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
