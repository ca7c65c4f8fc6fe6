//! `refrain exclude`: what must not shape, or not reappear in, a listener's recommendations.

use std::time::Instant;

use jiff::Timestamp;
use refrain::v1::taste_profile_service_client::TasteProfileServiceClient;
use refrain::v1::{self as pb, exclusion_scope::Scope};
use serde_json::json;

use crate::client::{Client, Connection};
use crate::failure::{Exit, Failure};
use crate::output::{self, Column, Output};
use crate::{parse, wire};

/// Exclude something from a listener's taste profile, take that back, or list the rules
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain exclude alice --context playlist:sleep          # does not shape the profile
  refrain exclude alice --artist 'Baby Shark' --effect both
  refrain exclude alice --item track-9 --include          # carve it out of the above
  refrain exclude alice --from 2026-12-01 --to 2026-12-27 --note 'guests' --expires 365d
  refrain exclude alice --context playlist:sleep --preview   # what would change
  refrain exclude alice --list
  refrain exclude alice --undo RULE

Environment: REFRAIN_ADDR")]
#[group(id = "what", required = true, multiple = true, args = [
    "item", "context", "artist", "tag", "session", "from", "to", "undo", "list"])]
pub(crate) struct Args {
    /// The listener
    #[arg(value_name = "USER")]
    user: String,
    /// One item
    #[arg(long, value_name = "ITEM", help_heading = "What the rule covers")]
    item: Option<String>,
    /// One playlist, album or station
    #[arg(long, value_name = "CONTEXT", help_heading = "What the rule covers")]
    context: Option<String>,
    /// All items of an artist
    #[arg(long, value_name = "ARTIST", help_heading = "What the rule covers")]
    artist: Option<String>,
    /// All items with a tag
    #[arg(long, value_name = "TAG", help_heading = "What the rule covers")]
    tag: Option<String>,
    /// One listening session
    #[arg(long, value_name = "SESSION", help_heading = "What the rule covers")]
    session: Option<String>,
    /// What was heard at or after this instant
    #[arg(long, value_name = "TIME", value_parser = parse::instant,
          help_heading = "What the rule covers")]
    from: Option<Timestamp>,
    /// What was heard before this instant
    #[arg(long, value_name = "TIME", value_parser = parse::instant,
          help_heading = "What the rule covers")]
    to: Option<Timestamp>,
    /// What the rule does
    #[arg(long, value_enum, default_value_t = Effect::Learn)]
    effect: Effect,
    /// How much, 0 to 1; only effect learn knows values between [default: 1]
    #[arg(long, value_name = "0..1")]
    strength: Option<f32>,
    /// Carve out of a wider exclusion instead of excluding
    #[arg(long)]
    include: bool,
    /// When the rule stops: an instant, or a duration from now [default: never]
    #[arg(long, value_name = "TIME", value_parser = parse::expiry)]
    expires: Option<Timestamp>,
    /// A word for people
    #[arg(long, value_name = "TEXT", default_value = "")]
    note: String,
    /// Id of the rule; makes the call safe to repeat [default: generated]
    #[arg(long, value_name = "ID", default_value = "")]
    rule_id: String,
    /// Only say what the rule would change: listens, minutes, the list before and after
    #[arg(long, conflicts_with_all = ["undo", "list"])]
    preview: bool,
    /// Take a rule back: as if it had never been
    #[arg(long, value_name = "RULE", conflicts_with_all = [
        "list", "item", "context", "artist", "tag", "session", "from", "to"])]
    undo: Option<String>,
    /// List the rules of the listener
    #[arg(long, conflicts_with_all = ["item", "context", "artist", "tag", "session", "from", "to"])]
    list: bool,
    #[command(flatten)]
    connection: Connection,
}

/// What a rule does.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Effect {
    /// What it covers does not shape the profile
    Learn,
    /// What it covers is never shown
    Serve,
    /// Both
    Both,
}

impl From<Effect> for pb::ExclusionEffect {
    fn from(effect: Effect) -> Self {
        match effect {
            Effect::Learn => Self::Learn,
            Effect::Serve => Self::Serve,
            Effect::Both => Self::Both,
        }
    }
}

/// Runs `refrain exclude`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    if let Some(rule) = &args.undo {
        return undo(args, rule, output);
    }
    if args.list {
        return list(args, output);
    }
    create(args, output)
}

fn create(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let action = if args.include {
        pb::ExclusionAction::Include
    } else {
        pb::ExclusionAction::Exclude
    };
    let rule = pb::Exclusion {
        rule_id: args.rule_id.clone(),
        scope: Some(pb::ExclusionScope {
            scope: Some(scope(args)?),
        }),
        strength: args.strength,
        effect: pb::ExclusionEffect::from(args.effect).into(),
        action: action.into(),
        expire_time: args.expires.map(wire::wire_instant),
        create_time: None,
        note: args.note.clone(),
    };
    if args.preview {
        return preview(args, rule, output);
    }
    let request = pb::CreateExclusionRequest {
        user_id: args.user.clone(),
        exclusion: Some(rule),
    };
    let (answer, took) = args.connection.run(async |client: Client| {
        let started = Instant::now();
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.create_exclusion(client.request(request)).await;
        Ok((client.answer("exclude", answer)?, started.elapsed()))
    })?;
    let rule = answer.exclusion.unwrap_or_default();
    let document = json!({
        "user_id": args.user,
        "exclusion": wire::exclusion(&rule),
        "profile_revision": answer.profile_revision,
    });
    output.result(&document, |output| {
        let verb = if args.include { "kept in" } else { "excluded" };
        output.line(format_args!(
            "{verb}: {} (rule {}, effect {}), profile revision {}, in {}",
            output::clip(&wire::scope_text(&rule), 100),
            rule.rule_id,
            wire::effect(&rule),
            answer.profile_revision,
            output::duration(took),
        ));
        output.line(format_args!(
            "undo with: refrain exclude {} --undo {}",
            args.user, rule.rule_id
        ));
    });
    Ok(Exit::Done)
}

fn preview(args: &Args, rule: pb::Exclusion, output: &Output) -> anyhow::Result<Exit> {
    let request = pb::PreviewExclusionRequest {
        user_id: args.user.clone(),
        exclusion: Some(rule),
        page_size: Some(10),
        ..pb::PreviewExclusionRequest::default()
    };
    let answer = args.connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.preview_exclusion(client.request(request)).await;
        client.answer("preview", answer)
    })?;
    output.result(&wire::preview(&answer), |output| {
        print_preview(&answer, output)
    });
    Ok(Exit::Done)
}

fn print_preview(answer: &pb::PreviewExclusionResponse, output: &Output) {
    output.line(format_args!(
        "would change {} listens ({:.0} minutes where that is known), {} of them to nothing; forbid {} items, release {}",
        output::count(answer.events_changed),
        answer.minutes,
        output::count(answer.events_excluded),
        output::count(answer.items_forbidden),
        output::count(answer.items_released),
    ));
    let tier = |profile: Option<&pb::ProfileUse>| {
        profile.map_or(pb::ProfileTier::Unspecified, pb::ProfileUse::tier)
    };
    let after = tier(answer.profile_after.as_ref());
    if after == pb::ProfileTier::Cold && tier(answer.profile_before.as_ref()) != after {
        output.line("nothing would be left to go by: what is popular would answer");
    }
    let mut table = output::table(&[
        Column::Number("#"),
        Column::Text("now"),
        Column::Text("with the rule"),
    ]);
    let cell = |list: &[pb::Result], at: usize| {
        list.get(at)
            .map_or_else(String::new, |result| output::clip(&result.item_id, 40))
    };
    for at in 0..answer.before.len().max(answer.after.len()) {
        table.add_row([
            (at + 1).to_string(),
            cell(&answer.before, at),
            cell(&answer.after, at),
        ]);
    }
    output.table(&table);
    output.line(format_args!(
        "{:.0} % of the list would stay",
        answer.overlap * 100.0
    ));
}

/// The one scope that the flags give.
fn scope(args: &Args) -> anyhow::Result<Scope> {
    let window = (args.from.is_some() || args.to.is_some()).then(|| {
        Scope::Window(pb::TimeWindow {
            start_time: args.from.map(wire::wire_instant),
            end_time: args.to.map(wire::wire_instant),
        })
    });
    let mut given = [
        args.item.clone().map(Scope::ItemId),
        args.context.clone().map(Scope::Context),
        args.artist.clone().map(Scope::Artist),
        args.tag.clone().map(Scope::Tag),
        args.session.clone().map(Scope::SessionId),
        window,
    ]
    .into_iter()
    .flatten();
    match (given.next(), given.next()) {
        (Some(scope), None) => Ok(scope),
        _ => Err(Failure::usage("a rule covers exactly one thing")
            .next("give one of --item, --context, --artist, --tag, --session, --from/--to; make several rules for several things")
            .error()),
    }
}

fn undo(args: &Args, rule: &str, output: &Output) -> anyhow::Result<Exit> {
    let request = pb::DeleteExclusionRequest {
        user_id: args.user.clone(),
        rule_id: rule.to_owned(),
        allow_missing: false,
    };
    let answer = args.connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let answer = service.delete_exclusion(client.request(request)).await;
        client.answer("undo", answer)
    })?;
    let document = json!({
        "user_id": args.user,
        "rule_id": rule,
        "profile_revision": answer.profile_revision,
    });
    output.result(&document, |output| {
        output.line(format_args!(
            "rule {rule} is gone, as if it had never been; profile revision {}",
            answer.profile_revision
        ));
    });
    Ok(Exit::Done)
}

fn list(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let (rules, revision) = args.connection.run(async |client: Client| {
        let mut service = TasteProfileServiceClient::new(client.channel.clone());
        let mut rules = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = pb::ListExclusionsRequest {
                user_id: args.user.clone(),
                page_size: Some(1_000),
                page_token,
            };
            let page = service.list_exclusions(client.request(request)).await;
            let page = client.answer("list the exclusions", page)?;
            rules.extend(page.exclusions);
            if page.next_page_token.is_empty() {
                return Ok((rules, page.profile_revision));
            }
            page_token = page.next_page_token;
        }
    })?;
    let document = json!({
        "user_id": args.user,
        "exclusions": rules.iter().map(wire::exclusion).collect::<Vec<_>>(),
        "profile_revision": revision,
    });
    output.result(&document, |output| print_rules(&rules, revision, output));
    Ok(Exit::Done)
}

fn print_rules(rules: &[pb::Exclusion], revision: u64, output: &Output) {
    if rules.is_empty() {
        output.line(format_args!("no rules; profile revision {revision}"));
        return;
    }
    let mut table = output::table(&[
        Column::Text("rule"),
        Column::Text("action"),
        Column::Text("covers"),
        Column::Text("effect"),
        Column::Number("strength"),
        Column::Text("expires"),
        Column::Text("created"),
        Column::Text("note"),
    ]);
    for rule in rules {
        let expires = wire::instant(rule.expire_time.as_ref());
        let created = wire::instant(rule.create_time.as_ref());
        table.add_row([
            output::clip(&rule.rule_id, 36),
            wire::short(rule.action().as_str_name(), "EXCLUSION_ACTION_"),
            output::clip(&wire::scope_text(rule), 60),
            wire::effect(rule),
            format!("{:.2}", rule.strength.unwrap_or(1.0)),
            expires.map_or_else(|| "never".to_owned(), |at| at.to_string()),
            created.map_or_else(String::new, output::instant),
            output::clip(&rule.note, 40),
        ]);
    }
    output.table(&table);
    output.line(format_args!(
        "{} rules; profile revision {revision}",
        rules.len()
    ));
}
