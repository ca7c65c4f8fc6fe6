//! Dark mode: variants that are computed after an answer was given and apart from it, compared with
//! it, and never shown.
//!
//! An answer that is to be shadowed leaves a [`Job`] in a bounded queue and is done. Threads of the
//! lowest priority, which rest where processors are wanted ([`courtesy`]), take jobs out, answer the same
//! question by another variant from the same version and profile, and count how far the two lists agree. When the queue is full, when the server is
//! busy, or when a job waited too long, it is dropped and counted: the dark goes first. Whoever left it
//! hears of that too, and of a list that failed: lists that are slow or wrong must not be missing from
//! what is known of a variant.

mod courtesy;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use refrain_ranking::{PERSISTENCE, overlap, rank_biased_overlap};
use serde::Deserialize;

use crate::metrics::Metrics;
use courtesy::{Scheduled, yield_to_all_others};

/// `[shadow]`: how much work in the dark there may be.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ShadowConfig {
    /// A variant to compute in the dark, without an experiment that asks for it.
    pub variant: Option<String>,
    /// For which share of the requests, in basis points, 0 to 10,000. Default 1,000.
    pub share_bp: u32,
    /// Threads that compute in the dark, 0 to 64; 0: none, everything is dropped. Default 1.
    pub threads: usize,
    /// Answers that may wait for them, 1 to 65,536; the next one is dropped. Default 64.
    pub queue: usize,
    /// Requests in flight above which nothing is taken on, 1 to 65,536. Default 64.
    pub max_in_flight: usize,
    /// How long a job may wait, and how long it may then take, in milliseconds: 1 to 60,000. Default
    /// 1,000.
    pub timeout_ms: u64,
}

impl Default for ShadowConfig {
    fn default() -> Self {
        Self {
            variant: None,
            share_bp: 1_000,
            threads: 1,
            queue: 64,
            max_in_flight: 64,
            timeout_ms: 1_000,
        }
    }
}

impl ShadowConfig {
    /// The first value out of range: its key and what is allowed.
    pub(crate) fn out_of_range(&self) -> Option<(&'static str, &'static str)> {
        [
            (self.share_bp <= 10_000, ("share_bp", "0 to 10000")),
            (self.threads <= 64, ("threads", "0 to 64")),
            ((1..=65_536).contains(&self.queue), ("queue", "1 to 65536")),
            (
                (1..=65_536).contains(&self.max_in_flight),
                ("max_in_flight", "1 to 65536"),
            ),
            (
                (1..=60_000).contains(&self.timeout_ms),
                ("timeout_ms", "1 to 60000"),
            ),
        ]
        .into_iter()
        .find_map(|(ok, complaint)| (!ok).then_some(complaint))
    }
}

/// One list to compute in the dark and compare.
pub(crate) struct Job {
    /// What was served, best first, by ordinal of the version that both come from.
    pub(crate) served: Vec<u32>,
    /// How long that took.
    pub(crate) served_took: Duration,
    /// Answers again, by the other variant, until the instant given, or says why it cannot.
    pub(crate) answer: Box<dyn FnOnce(Instant) -> Result<Vec<u32>, String> + Send>,
    /// Is told of the comparison, or why there is none: once, whatever becomes of the job.
    pub(crate) done: Done,
}

type Done = Box<dyn FnOnce(Result<&Comparison, &NoList>) + Send>;

/// Why there is no list in the dark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoList {
    /// It was not computed.
    #[error("dropped: {}", .0.as_str())]
    Dropped(Fate),
    /// It was computed for so long, and this went wrong.
    #[error("failed: {problem}")]
    Failed { took: Duration, problem: String },
}

/// How far the list in the dark agrees with the one that was served.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Comparison {
    /// Share of the served items that are in the dark list too.
    pub(crate) overlap: f64,
    /// Rank-biased overlap, persistence 0.9.
    pub(crate) rank_biased_overlap: f64,
    pub(crate) served_took: Duration,
    pub(crate) dark_took: Duration,
    /// The list in the dark, by ordinal.
    pub(crate) dark: Vec<u32>,
}

/// The pool.
#[derive(Debug)]
pub(crate) struct Shadow {
    queue: Option<SyncSender<(Instant, Job)>>,
    closed: Arc<AtomicBool>,
    max_in_flight: usize,
    metrics: Arc<Metrics>,
}

impl Shadow {
    /// Starts the threads. They end when the pool is dropped or closed.
    ///
    /// # Errors
    /// The system refuses threads.
    pub(crate) fn start(config: &ShadowConfig, metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let closed = Arc::new(AtomicBool::new(false));
        let mut shadow = Self {
            queue: None,
            closed: Arc::clone(&closed),
            max_in_flight: config.max_in_flight,
            metrics: Arc::clone(&metrics),
        };
        if config.threads == 0 {
            return Ok(shadow);
        }
        let (sender, receiver) = sync_channel(config.queue);
        let receiver = Arc::new(Mutex::new(receiver));
        let timeout = Duration::from_millis(config.timeout_ms);
        for _ in 0..config.threads {
            let worker = Worker {
                receiver: Arc::clone(&receiver),
                closed: Arc::clone(&closed),
                metrics: Arc::clone(&metrics),
                timeout,
            };
            std::thread::Builder::new()
                .name("shadow".to_owned())
                .spawn(move || worker.run())?;
        }
        shadow.queue = Some(sender);
        Ok(shadow)
    }

    /// Whether anything would be taken on now. Ask before making a job.
    ///
    /// # Errors
    /// Nothing would, which has been counted.
    pub(crate) fn is_open(&self) -> Result<(), NoList> {
        let in_flight = usize::try_from(self.metrics.in_flight.get()).unwrap_or(0);
        let fate = if self.queue.is_none() || self.closed.load(Ordering::Relaxed) {
            Fate::Closed
        } else if in_flight > self.max_in_flight {
            Fate::Busy
        } else {
            return Ok(());
        };
        self.metrics.shadow.count(fate);
        Err(NoList::Dropped(fate))
    }

    /// Takes a job on or drops it. Never blocks.
    pub(crate) fn offer(&self, job: Job) {
        let refused = match &self.queue {
            None => Some((Fate::Closed, job)),
            Some(queue) => match queue.try_send((Instant::now(), job)) {
                Ok(()) => None,
                Err(TrySendError::Full((_, job))) => Some((Fate::QueueFull, job)),
                Err(TrySendError::Disconnected((_, job))) => Some((Fate::Closed, job)),
            },
        };
        if let Some((fate, job)) = refused {
            self.metrics.shadow.count(fate);
            (job.done)(Err(&NoList::Dropped(fate)));
        }
    }

    /// Takes on nothing more and drops what waits.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    receiver: Arc<Mutex<Receiver<(Instant, Job)>>>,
    closed: Arc<AtomicBool>,
    metrics: Arc<Metrics>,
    timeout: Duration,
}

impl Worker {
    fn run(self) {
        yield_to_all_others();
        loop {
            let next = {
                let receiver = self.receiver.lock().unwrap_or_else(PoisonError::into_inner);
                receiver.recv()
            };
            let Ok((since, job)) = next else { return };
            let fate = if self.closed.load(Ordering::Relaxed) {
                Fate::Closed
            } else if since.elapsed() > self.timeout {
                Fate::Late
            } else {
                let before = Scheduled::now();
                self.compare(job);
                if let (Some(before), Some(now)) = (before, Scheduled::now()) {
                    std::thread::sleep(now.since(before).rest());
                }
                continue;
            };
            (job.done)(Err(&NoList::Dropped(fate)));
            self.metrics.shadow.count(fate);
        }
    }

    fn compare(&self, job: Job) {
        let start = Instant::now();
        let Job {
            served,
            served_took,
            answer,
            done,
        } = job;
        // A panic ends the job, not the thread.
        let answered = catch_unwind(AssertUnwindSafe(|| answer(start + self.timeout)));
        let dark_took = start.elapsed();
        let (fate, compared) = match answered.unwrap_or_else(|_| Err("panicked".to_owned())) {
            Ok(dark) => {
                let comparison = Comparison {
                    overlap: overlap(&served, &dark),
                    rank_biased_overlap: rank_biased_overlap(&served, &dark, PERSISTENCE),
                    served_took,
                    dark_took,
                    dark,
                };
                self.metrics.shadow.observe(&comparison);
                (Fate::Compared, Ok(comparison))
            }
            Err(problem) => {
                let took = dark_took;
                (Fate::Failed, Err(NoList::Failed { took, problem }))
            }
        };
        // Told before it is counted: who sees the count finds the row.
        done(compared.as_ref());
        self.metrics.shadow.count(fate);
    }
}

/// What became of a list that was to be computed in the dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Compared,
    QueueFull,
    Busy,
    Late,
    Closed,
    Failed,
}

impl Fate {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Compared, "compared"),
        (Self::QueueFull, "queue_full"),
        (Self::Busy, "busy"),
        (Self::Late, "late"),
        (Self::Closed, "closed"),
        (Self::Failed, "failed"),
    ];

    fn as_str(self) -> &'static str {
        let known = Self::ALL.iter().find(|(fate, _)| *fate == self);
        known.map_or("", |(_, name)| name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FateLabels {
    outcome: &'static str,
}

/// What is counted of the dark.
#[derive(Debug)]
pub(crate) struct ShadowMetrics {
    fates: Vec<Counter>,
    overlap: Histogram,
    rank_biased_overlap: Histogram,
    duration: Histogram,
}

/// Shares: of overlap and rank-biased overlap.
const SHARES: [f64; 11] = [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

impl ShadowMetrics {
    pub(crate) fn new(registry: &mut Registry, latency: &[f64]) -> Self {
        let family = Family::<FateLabels, Counter>::default();
        registry.register(
            "shadow",
            "Lists that were to be computed in the dark, by what became of them",
            family.clone(),
        );
        let fates =
            Fate::ALL.map(|(_, outcome)| family.get_or_create(&FateLabels { outcome }).clone());
        let shares = || Histogram::new(SHARES);
        let this = Self {
            fates: fates.into(),
            overlap: shares(),
            rank_biased_overlap: shares(),
            duration: Histogram::new(latency.iter().copied()),
        };
        registry.register(
            "shadow_overlap",
            "Share of the served items that the list in the dark has too",
            this.overlap.clone(),
        );
        registry.register(
            "shadow_rank_biased_overlap",
            "Rank-biased overlap of served and dark list, persistence 0.9",
            this.rank_biased_overlap.clone(),
        );
        registry.register_with_unit(
            "shadow_duration",
            "Computing one list in the dark",
            Unit::Seconds,
            this.duration.clone(),
        );
        this
    }

    fn count(&self, fate: Fate) {
        let at = Fate::ALL.iter().position(|(known, _)| *known == fate);
        if let Some(counter) = at.and_then(|at| self.fates.get(at)) {
            counter.inc();
        }
    }

    fn observe(&self, comparison: &Comparison) {
        self.overlap.observe(comparison.overlap);
        self.rank_biased_overlap
            .observe(comparison.rank_biased_overlap);
        self.duration.observe(comparison.dark_took.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    fn pool(config: &ShadowConfig) -> (Shadow, Arc<Metrics>) {
        let metrics = Arc::new(Metrics::new("scalar"));
        let shadow = Shadow::start(config, Arc::clone(&metrics)).expect("threads");
        (shadow, metrics)
    }

    fn has(metrics: &Metrics, line: &str) -> bool {
        let text = metrics.encode().expect("encodes");
        text.lines().any(|found| found == line)
    }

    type Told = Result<Comparison, NoList>;

    fn job(
        answer: impl FnOnce(Instant) -> Result<Vec<u32>, String> + Send + 'static,
        told: &Sender<Told>,
    ) -> Job {
        let told = told.clone();
        Job {
            served: vec![1, 2, 3],
            served_took: Duration::from_micros(100),
            answer: Box::new(answer),
            // The test may be over when it closes the pool.
            done: Box::new(move |found| drop(told.send(found.cloned().map_err(Clone::clone)))),
        }
    }

    #[test]
    fn lists_are_compared_and_counted() {
        let (shadow, metrics) = pool(&ShadowConfig::default());
        let (sender, receiver) = channel();
        assert_eq!(shadow.is_open(), Ok(()));
        shadow.offer(job(|_| Ok(vec![1, 2, 4]), &sender));
        let comparison = receiver.recv().expect("told").expect("compared");
        assert!((comparison.overlap - 2.0 / 3.0).abs() < 1e-12);
        assert!((comparison.rank_biased_overlap - 0.73).abs() < 1e-12);
        assert_eq!(comparison.dark, [1, 2, 4]);
        assert!(has(&metrics, "refrain_shadow_overlap_count 1"));
    }

    /// While one list is being computed and the queue is full, the next is dropped at once; a panic or a
    /// failure costs its own job alone; after closing nothing is computed. Every job is told of.
    #[test]
    fn what_does_not_fit_or_fails_is_told_of_and_counted() {
        let config = ShadowConfig {
            queue: 1,
            timeout_ms: 60_000,
            ..ShadowConfig::default()
        };
        let (shadow, metrics) = pool(&config);
        let (started, begun) = channel();
        let (go, wait) = channel::<()>();
        let (first, of_first) = channel();
        let panics = move |_| {
            started.send(()).expect("the test waits");
            wait.recv().expect("the test says go");
            panic!("in the dark");
        };
        shadow.offer(job(panics, &first));
        begun.recv().expect("begun");
        let (second, of_second) = channel();
        let (third, of_third) = channel();
        shadow.offer(job(|_| Err("no such label".to_owned()), &second));
        shadow.offer(job(|_| Ok(vec![3]), &third));
        let dropped = |fate| Err(NoList::Dropped(fate));
        assert_eq!(of_third.recv().expect("told"), dropped(Fate::QueueFull));
        go.send(()).expect("waits");
        for (told, words) in [
            (of_first, "failed: panicked"),
            (of_second, "failed: no such label"),
        ] {
            let problem = told.recv().expect("told").expect_err("failed");
            assert_eq!(problem.to_string(), words);
        }
        shadow.close();
        assert_eq!(shadow.is_open(), Err(NoList::Dropped(Fate::Closed)));
        let (fourth, of_fourth) = channel();
        shadow.offer(job(|_| Ok(vec![3]), &fourth));
        assert_eq!(of_fourth.recv().expect("told"), dropped(Fate::Closed));
        assert!(has(
            &metrics,
            r#"refrain_shadow_total{outcome="queue_full"} 1"#
        ));
        // A job is counted once it was told of.
        while !has(&metrics, r#"refrain_shadow_total{outcome="failed"} 2"#) {
            std::thread::yield_now();
        }
        assert!(!has(&metrics, "refrain_shadow_overlap_count 1"));
    }

    #[test]
    fn a_busy_server_computes_nothing_in_the_dark() {
        let config = ShadowConfig {
            max_in_flight: 3,
            ..ShadowConfig::default()
        };
        let (shadow, metrics) = pool(&config);
        metrics.in_flight.set(3);
        assert_eq!(shadow.is_open(), Ok(()));
        metrics.in_flight.set(4);
        assert_eq!(shadow.is_open(), Err(NoList::Dropped(Fate::Busy)));
        assert!(has(&metrics, r#"refrain_shadow_total{outcome="busy"} 1"#));
        let none = pool(&ShadowConfig {
            threads: 0,
            ..ShadowConfig::default()
        });
        assert_eq!(none.0.is_open(), Err(NoList::Dropped(Fate::Closed)));
    }
}
