//! Guards the wire contract against accidental breaking changes.
//!
//! `contract.txt` holds the contract as sorted text: every message, field (number, label, type), enum
//! value and rpc. What a client compiled against yesterday relies on must still be there, unchanged:
//! a line that is gone or different fails. New lines are welcome but deliberate:
//! `UPDATE_GOLDEN=1 cargo test -p refrain --test it contract` adds them. Breaking on purpose means
//! deleting the old line from `contract.txt` by hand, where a reviewer sees it.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorProto,
    FileDescriptorSet, ServiceDescriptorProto,
};

const PACKAGE: &str = "refrain.v1";

#[test]
fn contract_is_unbroken() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/contract.txt");
    let update = std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1");
    let now = contract(&files());
    let golden = match fs_err::read_to_string(&path) {
        Ok(text) => parse(&text),
        Err(error) if update && error.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
        Err(error) => panic!("{error}"),
    };

    let difference = Difference::between(&golden, &now);
    assert!(
        difference.broken.is_empty(),
        "the wire contract is broken:\n  {}\nclients in the field rely on these; to break them on \
         purpose, delete the old lines from tests/it/contract.txt by hand",
        difference.broken.join("\n  ")
    );
    if !difference.added.is_empty() && update {
        fs_err::write(&path, render(&now)).expect("rewrite the golden contract");
        return;
    }
    assert!(
        difference.added.is_empty(),
        "the wire contract has grown:\n  {}\nif that is meant, run UPDATE_GOLDEN=1 cargo test -p \
         refrain --test it contract and commit tests/it/contract.txt",
        difference.added.join("\n  ")
    );
}

#[test]
fn everything_is_commented() {
    let mut bare = Vec::new();
    for file in files() {
        let commented = commented_paths(&file);
        for (path, name) in named_paths(&file) {
            if !commented.contains(&path) {
                bare.push(format!("{}: {name}", file.name()));
            }
        }
    }
    assert!(
        bare.is_empty(),
        "without a comment in proto/:\n  {}",
        bare.join("\n  ")
    );
}

#[test]
fn the_guard_tells_breaking_from_growing() {
    let golden = parse("field A.x = 1 string\nfield A.y = 2 uint32\nmessage A\n");
    // Removed.
    let now = parse("field A.x = 1 string\nmessage A\n");
    assert_eq!(
        Difference::between(&golden, &now).broken,
        ["removed: field A.y = 2 uint32"]
    );
    // Renumbered and retyped.
    let now = parse("field A.x = 3 string\nfield A.y = 2 int64\nmessage A\n");
    assert_eq!(
        Difference::between(&golden, &now).broken,
        [
            "changed: field A.x = 1 string (now 3 string)",
            "changed: field A.y = 2 uint32 (now 2 int64)"
        ]
    );
    // Grown.
    let now = parse("field A.x = 1 string\nfield A.y = 2 uint32\nfield A.z = 3 bool\nmessage A\n");
    let difference = Difference::between(&golden, &now);
    assert!(difference.broken.is_empty());
    assert_eq!(difference.added, ["field A.z = 3 bool"]);
}

#[test]
fn the_guard_sees_numbers_labels_and_types() {
    let text = render(&contract(&files()));
    for line in [
        "rpc refrain.v1.RecommendationService.Similar = (refrain.v1.SimilarRequest) returns (refrain.v1.SimilarResponse)",
        "field refrain.v1.Event.event_id = 1 string",
        "field refrain.v1.Event.played_ms = 5 optional int64",
        "field refrain.v1.Vector.values = 1 repeated float",
        "field refrain.v1.RecommendRequest.user_id = 3 oneof(subject) string",
        "field refrain.v1.RecommendRequest.context = 15 repeated refrain.v1.RecommendRequest.ContextEntry",
        "value refrain.v1.EventKind.EVENT_KIND_PLAY = 1",
    ] {
        assert!(
            text.lines().any(|found| found == line),
            "not in the contract: {line}"
        );
    }
}

/// What changed between two contracts.
struct Difference {
    broken: Vec<String>,
    added: Vec<String>,
}

impl Difference {
    fn between(old: &BTreeMap<String, String>, new: &BTreeMap<String, String>) -> Self {
        let broken = old
            .iter()
            .filter_map(|(key, was)| match new.get(key) {
                None => Some(format!("removed: {}", line(key, was))),
                Some(is) if is != was => Some(format!("changed: {} (now {is})", line(key, was))),
                Some(_) => None,
            })
            .collect();
        let added = new
            .iter()
            .filter(|(key, _)| !old.contains_key(*key))
            .map(|(key, is)| line(key, is))
            .collect();
        Self { broken, added }
    }
}

/// Key (`field refrain.v1.Event.kind`) to meaning (`4 refrain.v1.EventKind`).
fn contract(files: &[FileDescriptorProto]) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for file in files {
        for message in &file.message_type {
            add_message(&mut lines, PACKAGE, message);
        }
        for kind in &file.enum_type {
            add_enum(&mut lines, PACKAGE, kind);
        }
        for service in &file.service {
            add_service(&mut lines, service);
        }
    }
    lines
}

fn add_message(lines: &mut BTreeMap<String, String>, scope: &str, message: &DescriptorProto) {
    let name = format!("{scope}.{}", message.name());
    lines.insert(format!("message {name}"), String::new());
    for field in &message.field {
        lines.insert(
            format!("field {name}.{}", field.name()),
            field_meaning(message, field),
        );
    }
    for nested in &message.nested_type {
        add_message(lines, &name, nested);
    }
    for kind in &message.enum_type {
        add_enum(lines, &name, kind);
    }
}

fn field_meaning(message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let oneof = field
        .oneof_index
        .and_then(|index| message.oneof_decl.get(usize::try_from(index).ok()?));
    let label = match (field.label(), oneof) {
        (Label::Repeated, _) => "repeated ".to_owned(),
        (_, Some(_)) if field.proto3_optional() => "optional ".to_owned(),
        (_, Some(oneof)) => format!("oneof({}) ", oneof.name()),
        _ => String::new(),
    };
    let of_type = match field.r#type() {
        Type::Message | Type::Enum | Type::Group => {
            field.type_name().trim_start_matches('.').to_owned()
        }
        scalar => scalar
            .as_str_name()
            .trim_start_matches("TYPE_")
            .to_ascii_lowercase(),
    };
    format!("{} {label}{of_type}", field.number())
}

fn add_enum(lines: &mut BTreeMap<String, String>, scope: &str, kind: &EnumDescriptorProto) {
    let name = format!("{scope}.{}", kind.name());
    lines.insert(format!("enum {name}"), String::new());
    for value in &kind.value {
        lines.insert(
            format!("value {name}.{}", value.name()),
            value.number().to_string(),
        );
    }
}

fn add_service(lines: &mut BTreeMap<String, String>, service: &ServiceDescriptorProto) {
    let stream = |is_stream: bool| if is_stream { "stream " } else { "" };
    let plain = |name: &str| name.trim_start_matches('.').to_owned();
    for method in &service.method {
        lines.insert(
            format!("rpc {PACKAGE}.{}.{}", service.name(), method.name()),
            format!(
                "({}{}) returns ({}{})",
                stream(method.client_streaming()),
                plain(method.input_type()),
                stream(method.server_streaming()),
                plain(method.output_type())
            ),
        );
    }
}

fn line(key: &str, meaning: &str) -> String {
    if meaning.is_empty() {
        key.to_owned()
    } else {
        format!("{key} = {meaning}")
    }
}

fn render(contract: &BTreeMap<String, String>) -> String {
    contract
        .iter()
        .map(|(key, meaning)| line(key, meaning) + "\n")
        .collect()
}

fn parse(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter(|line| !line.is_empty())
        .map(|line| match line.split_once(" = ") {
            Some((key, meaning)) => (key.to_owned(), meaning.to_owned()),
            None => (line.to_owned(), String::new()),
        })
        .collect()
}

/// The files of our package, as the server's reflection shows them.
fn files() -> Vec<FileDescriptorProto> {
    FileDescriptorSet::decode(refrain::v1::FILE_DESCRIPTOR_SET)
        .expect("the embedded descriptor set decodes")
        .file
        .into_iter()
        .filter(|file| file.package() == PACKAGE)
        .collect()
}

/// Paths (as `descriptor.proto` counts them) that carry a comment before them.
fn commented_paths(file: &FileDescriptorProto) -> Vec<Vec<i32>> {
    let locations = file
        .source_code_info
        .as_ref()
        .map_or(&[][..], |info| &info.location[..]);
    locations
        .iter()
        .filter(|location| !location.leading_comments().trim().is_empty())
        .map(|location| location.path.clone())
        .collect()
}

/// Everything that has to carry a comment: path and name. Numbers are the field numbers of
/// `FileDescriptorProto`, `DescriptorProto`, `EnumDescriptorProto` and `ServiceDescriptorProto`.
fn named_paths(file: &FileDescriptorProto) -> Vec<(Vec<i32>, String)> {
    let mut named = Vec::new();
    for (index, message) in numbered(&file.message_type) {
        message_paths(vec![4, index], message.name(), message, &mut named);
    }
    for (index, kind) in numbered(&file.enum_type) {
        enum_paths(vec![5, index], kind.name(), kind, &mut named);
    }
    for (index, service) in numbered(&file.service) {
        named.push((vec![6, index], service.name().to_owned()));
        for (method_index, method) in numbered(&service.method) {
            let name = format!("{}.{}", service.name(), method.name());
            named.push((vec![6, index, 2, method_index], name));
        }
    }
    named
}

fn message_paths(
    path: Vec<i32>,
    name: &str,
    message: &DescriptorProto,
    named: &mut Vec<(Vec<i32>, String)>,
) {
    let below = |kind: i32, index: i32| [&path[..], &[kind, index]].concat();
    for (index, field) in numbered(&message.field) {
        named.push((below(2, index), format!("{name}.{}", field.name())));
    }
    for (index, nested) in numbered(&message.nested_type) {
        // The entry type of a map is the compiler's, not ours.
        if !nested
            .options
            .as_ref()
            .is_some_and(|options| options.map_entry())
        {
            message_paths(
                below(3, index),
                &format!("{name}.{}", nested.name()),
                nested,
                named,
            );
        }
    }
    for (index, kind) in numbered(&message.enum_type) {
        enum_paths(
            below(4, index),
            &format!("{name}.{}", kind.name()),
            kind,
            named,
        );
    }
    named.push((path, name.to_owned()));
}

fn enum_paths(
    path: Vec<i32>,
    name: &str,
    kind: &EnumDescriptorProto,
    named: &mut Vec<(Vec<i32>, String)>,
) {
    for (index, value) in numbered(&kind.value) {
        named.push((
            [&path[..], &[2, index]].concat(),
            format!("{name}.{}", value.name()),
        ));
    }
    named.push((path, name.to_owned()));
}

fn numbered<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0_i32..).zip(items)
}
