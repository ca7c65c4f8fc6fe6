//! What happens on the tour, step by step, and how long each takes.

use std::fmt::Display;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::output::{self, Output};

/// The steps so far.
#[derive(Debug)]
pub(super) struct Steps<'a> {
    pub(super) output: &'a Output,
    started: Instant,
    current: Option<(&'static str, Instant)>,
    done: Vec<(&'static str, Duration)>,
}

impl<'a> Steps<'a> {
    /// None yet.
    pub(super) fn new(output: &'a Output) -> Self {
        Self {
            output,
            started: Instant::now(),
            current: None,
            done: Vec::new(),
        }
    }

    /// Starts a step, and says what it does.
    pub(super) fn begin(&mut self, name: &'static str, what: impl Display) {
        if !self.done.is_empty() {
            self.output.line("");
        }
        self.output
            .line(format_args!("{}. {name}: {what}", self.done.len() + 1));
        self.current = Some((name, Instant::now()));
    }

    /// Says something about the current step.
    pub(super) fn say(&self, text: impl Display) {
        self.output.line(text);
    }

    /// Ends the step, and says how long it took.
    pub(super) fn end(&mut self) {
        if let Some((name, started)) = self.current.take() {
            let took = started.elapsed();
            self.done.push((name, took));
            self.output
                .line(format_args!("   {name} took {}", output::duration(took)));
        }
    }

    /// Time since the beginning.
    pub(super) fn total(&self) -> Duration {
        self.started.elapsed()
    }

    /// Names and seconds, in order.
    pub(super) fn document(&self) -> Vec<Value> {
        self.done
            .iter()
            .map(|(name, took)| json!({ "name": name, "seconds": took.as_secs_f64() }))
            .collect()
    }
}
