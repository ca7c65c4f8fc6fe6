//! How a command ends: its exit code, and an error with its causes and what to do next.

use std::fmt::Display;
use std::process::ExitCode;

use serde_json::json;

use crate::output::Output;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// It could not.
    Failed,
    /// It was asked wrongly.
    Usage,
    /// A gate or check said no.
    Refused,
    /// An experiment does harm.
    Harm,
}

impl Exit {
    /// The number that the shell sees.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Harm => 4,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Context of an error: what did not work, what to do next, and how the program exits.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    next: Option<String>,
    exit: Exit,
}

impl Failure {
    /// The work failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            next: None,
            exit: Exit::Failed,
        }
    }

    /// The command line asks for something that cannot be meant.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Usage,
            ..Self::new(message)
        }
    }

    /// A check said no.
    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Refused,
            ..Self::new(message)
        }
    }

    /// Says what to do next.
    pub(crate) fn next(self, next: impl Into<String>) -> Self {
        Self {
            next: Some(next.into()),
            ..self
        }
    }

    /// As an error that was caused by what `cause` tells.
    pub(crate) fn because(self, cause: impl Into<String>) -> anyhow::Error {
        anyhow::Error::msg(cause.into()).context(self)
    }

    /// As an error without a further cause.
    pub(crate) fn error(self) -> anyhow::Error {
        anyhow::Error::new(self)
    }
}

impl Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Reports an error on standard error, and as the JSON document when no result came before it.
pub(crate) fn report(output: &Output, error: &anyhow::Error) -> Exit {
    let failure = error.downcast_ref::<Failure>();
    let exit = failure.map_or(Exit::Failed, |failure| failure.exit);
    let next = failure.and_then(|failure| failure.next.as_deref());
    let causes = causes(error);
    output.note(format_args!("error: {}", causes.join(": ")));
    if let Some(next) = next {
        output.note(format_args!("  next: {next}"));
    }
    output.document(&json!({ "error": {
        "message": causes.first(),
        "causes": causes.get(1..).unwrap_or_default(),
        "next": next,
        "exit": exit.code(),
    }}));
    exit
}

/// The messages of an error and its causes, without those that the one before already tells.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let mut told: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !text.is_empty() && !told.iter().any(|before| before.contains(&text)) {
            told.push(text);
        }
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_found_under_further_context() {
        use anyhow::Context as _;
        let inner = std::io::Error::other("disk full");
        let error = Err::<(), _>(inner)
            .context(Failure::refused("cannot seal the bundle").next("free some space"))
            .context("build")
            .expect_err("made to fail");
        let failure = error.downcast_ref::<Failure>().expect("in the chain");
        assert_eq!(failure.exit, Exit::Refused);
        assert_eq!(failure.next.as_deref(), Some("free some space"));
        assert_eq!(
            causes(&error),
            ["build", "cannot seal the bundle", "disk full"]
        );
    }

    #[test]
    fn a_cause_that_was_told_is_not_told_again() {
        let cause = anyhow::anyhow!("no such file").context("open x: no such file");
        assert_eq!(causes(&cause), ["open x: no such file"]);
    }
}
