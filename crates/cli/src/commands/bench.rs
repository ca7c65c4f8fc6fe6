//! `refrain bench`: the index beside other libraries, under protocol 1 of the peer benchmarks.
//!
//! One call does one phase: it reads a JSON configuration and writes a JSON result. The index lives
//! between calls as one section file in `index_dir`; the clock is ours, recall is judged by the
//! harness from the ids that we return.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use refrain_builder::build::VectorSet;
use refrain_bundle::{OpenMode, SectionFile, write_sections};
use refrain_index::{BuildParams, Filter, Hit, Index, OrdinalSet, Scratch, SearchParams};
use refrain_kernels::Metric;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::usage::Usage;
use crate::failure::{Exit, Failure};
use crate::output::Output;

mod usage;

/// Measure the index on given vectors: one phase of the peer benchmark's protocol 1
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  refrain bench config.json result.json
  ann_bench.py --set dev --external refrain=\"refrain bench\"

CONFIG names the phase (info, build, load, search, latency), .npy files of vectors, and where the
index is kept; RESULT is written for it.")]
pub(crate) struct Args {
    /// The configuration to read
    #[arg(value_name = "CONFIG")]
    config: PathBuf,
    /// The result to write
    #[arg(value_name = "RESULT")]
    result: PathBuf,
    /// Links of a node
    #[arg(long, default_value_t = 16, value_name = "N")]
    m: usize,
    /// Pool size while building [default: 80; by ip 40 to 80, as suits the number of items]
    #[arg(long, value_name = "N")]
    ef_construction: Option<usize>,
    /// Seed of the graph
    #[arg(long, default_value_t = 42, value_name = "N")]
    seed: u64,
    /// How the index is opened: copied into large pages of memory, as other libraries hold theirs, or
    /// mapped
    #[arg(long, default_value = "copy", value_name = "MODE")]
    open: Open,
}

/// See `store.open` of the server.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Open {
    Map,
    Populate,
    Copy,
}

/// A configuration. Fields of later protocols are let through, as the harness may say more than a
/// phase needs.
#[derive(Debug, Deserialize)]
struct Config {
    protocol: u32,
    base: PathBuf,
    query: PathBuf,
    metric: String,
    n: usize,
    d: usize,
    index_dir: PathBuf,
    work_dir: PathBuf,
    #[serde(flatten)]
    phase: Phase,
}

#[derive(Debug, Deserialize)]
#[serde(tag = "phase", rename_all = "lowercase")]
enum Phase {
    Info,
    Build {
        threads: usize,
    },
    Load,
    Search {
        k: usize,
        threads: usize,
        nq: usize,
        offset: usize,
        sweep: Vec<Setting>,
        #[serde(default)]
        write_ids: bool,
        #[serde(default)]
        allow_bits: Option<PathBuf>,
    },
    Latency {
        k: usize,
        nq: usize,
        sweep: Vec<Setting>,
    },
}

/// One point of the sweep.
#[derive(Debug, Clone, Copy, Deserialize, Serialize)]
struct Setting {
    ef: usize,
}

const SWEEP: [usize; 13] = [10, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 800];
/// The setting of the `load` phase.
const MIDDLE: Setting = Setting { ef: 96 };
/// Before the clock starts, all queries are answered once, or as many as take this long: a setting is timed in a process of its
/// own, where the libraries beside it have answered all of them before in theirs.
const WARM_UP: Duration = Duration::from_millis(250);
const INDEX_FILE: &str = "index.rfs";

/// Runs `refrain bench`.
pub(crate) fn run(args: &Args, output: &Output) -> anyhow::Result<Exit> {
    let text = fs_err::read_to_string(&args.config)?;
    let config: Config = serde_json::from_str(&text).with_context(|| {
        Failure::new(format!(
            "{} is no configuration of protocol 1",
            args.config.display()
        ))
    })?;
    if config.protocol != 1 {
        let spoken = format!("protocol {} is not spoken here, only 1", config.protocol);
        return Err(Failure::new(spoken).error());
    }
    let result = config.run(args)?;
    let mut text = serde_json::to_vec(&result)?;
    text.push(b'\n');
    fs_err::write(&args.result, text)?;
    output.document(&result);
    Ok(Exit::Done)
}

impl Config {
    fn run(&self, args: &Args) -> anyhow::Result<Value> {
        if let Phase::Search { k, .. } | Phase::Latency { k, .. } = self.phase
            && !(1..=self.n).contains(&k)
        {
            return Err(Failure::new(format!("k = {k}: expected 1 to n = {}", self.n)).error());
        }
        match &self.phase {
            Phase::Info => Ok(json!({
                "sweep": SWEEP.map(|ef| Setting { ef }),
                "can_filter": true,
            })),
            Phase::Build { threads } => self.build(args, *threads),
            Phase::Load => self.load(args),
            Phase::Search {
                k,
                threads,
                nq,
                offset,
                sweep,
                write_ids,
                allow_bits,
            } => {
                let index = self.open(args)?;
                let queries = self.queries(*offset, *nq)?;
                let allow = allow_bits
                    .as_deref()
                    .map(|path| self.allowed(path))
                    .transpose()?;
                let run = Run {
                    index: &index,
                    queries: &queries,
                    k: *k,
                    filter: Filter {
                        exclude: &[],
                        allow: allow.as_ref(),
                    },
                };
                let points = sweep
                    .iter()
                    .map(|&setting| self.point(&run, setting, *threads, *write_ids))
                    .collect::<anyhow::Result<Vec<Value>>>()?;
                Ok(json!({ "points": points }))
            }
            Phase::Latency { k, nq, sweep } => {
                let index = self.open(args)?;
                let queries = self.queries(0, *nq)?;
                let run = Run {
                    index: &index,
                    queries: &queries,
                    k: *k,
                    filter: Filter::default(),
                };
                let points = sweep
                    .iter()
                    .map(|&setting| run.latency(setting))
                    .collect::<anyhow::Result<Vec<Value>>>()?;
                Ok(json!({ "points": points }))
            }
        }
    }

    fn build(&self, args: &Args, threads: usize) -> anyhow::Result<Value> {
        let params = BuildParams {
            metric: self.metric()?,
            m: args.m,
            ef_construction: args.ef_construction,
            seed: args.seed,
            threads,
        };
        let base = self.vectors(&self.base, self.n)?;
        let before = Usage::now()?;
        let started = Instant::now();
        let built = refrain_index::build(&base.values, self.d, &params, &())?;
        let seconds = started.elapsed().as_secs_f64();
        let after = Usage::now()?;
        let sections = built.into_sections();
        let named: Vec<(&str, &[u8], bool)> = sections
            .iter()
            .map(|section| (section.name, section.bytes.as_ref(), section.hot))
            .collect();
        fs_err::create_dir_all(&self.index_dir)?;
        write_sections(&self.index_dir.join(INDEX_FILE), &named)?;
        Ok(json!({
            "build_seconds": seconds,
            "cpu_seconds": (after.cpu - before.cpu).as_secs_f64(),
            "rss_growth": after.resident.saturating_sub(before.resident),
        }))
    }

    fn load(&self, args: &Args) -> anyhow::Result<Value> {
        let queries = self.queries(0, 2_000)?;
        let before = Usage::now()?;
        let started = Instant::now();
        let index = self.open(args)?;
        let loaded = started.elapsed();
        let run = Run {
            index: &index,
            queries: &queries,
            k: 10,
            filter: Filter::default(),
        };
        let mut searcher = run.searcher(MIDDLE);
        searcher.search(0)?;
        let first = started.elapsed();
        for at in 0..run.count() {
            searcher.search(at)?;
        }
        let after = Usage::now()?;
        Ok(json!({
            "load_seconds": loaded.as_secs_f64(),
            "first_query_seconds": first.as_secs_f64(),
            "rss_growth": after.resident.saturating_sub(before.resident),
            "anon_growth": after.anonymous.saturating_sub(before.anonymous),
        }))
    }

    fn point(
        &self,
        run: &Run<'_>,
        setting: Setting,
        threads: usize,
        write_ids: bool,
    ) -> anyhow::Result<Value> {
        let Pass { wall, cpu, ids } = run.pass(setting, threads.max(1))?;
        let mut point = json!({
            "param": setting,
            "qps": run.count() as f64 / wall.as_secs_f64().max(f64::MIN_POSITIVE),
            "cpu": cpu.as_secs_f64() / wall.as_secs_f64().max(f64::MIN_POSITIVE),
        });
        if write_ids {
            let path = self.work_dir.join(format!("ids-{}.bin", setting.ef));
            let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
            fs_err::write(&path, bytes)?;
            point["ids_file"] = json!(path);
        }
        Ok(point)
    }

    fn open(&self, args: &Args) -> anyhow::Result<Index> {
        let mode = match args.open {
            Open::Map => OpenMode::Map,
            Open::Populate => OpenMode::Populate,
            Open::Copy => OpenMode::Copy,
        };
        let file = SectionFile::open(&self.index_dir.join(INDEX_FILE), mode)?;
        let index = Index::open(&|name| file.section(name))?;
        if index.len() != self.n || index.dim() != self.d {
            return Err(Failure::new(format!(
                "the saved index holds {} x {}, the configuration says {} x {}",
                index.len(),
                index.dim(),
                self.n,
                self.d
            ))
            .error());
        }
        Ok(index)
    }

    fn metric(&self) -> anyhow::Result<Metric> {
        match self.metric.as_str() {
            "ip" => Ok(Metric::InnerProduct),
            "cos" => Ok(Metric::Cosine),
            "l2" => Ok(Metric::L2),
            other => Err(Failure::new(format!("metric {other:?} is none of ip, cos, l2")).error()),
        }
    }

    fn vectors(&self, path: &Path, rows: usize) -> anyhow::Result<VectorSet> {
        let vectors = VectorSet::read(path, None)?;
        if vectors.dim != self.d || vectors.ids.len() < rows {
            return Err(Failure::new(format!(
                "{} holds {} x {}, the configuration says {rows} x {}",
                path.display(),
                vectors.ids.len(),
                vectors.dim,
                self.d
            ))
            .error());
        }
        Ok(vectors)
    }

    /// Up to `nq` queries from `offset` on.
    fn queries(&self, offset: usize, nq: usize) -> anyhow::Result<Vec<f32>> {
        let queries = self.vectors(&self.query, 0)?;
        let from = offset.saturating_mul(self.d).min(queries.values.len());
        let to = offset
            .saturating_add(nq)
            .saturating_mul(self.d)
            .min(queries.values.len());
        if from == to {
            return Err(Failure::new(format!(
                "{} has no queries from {offset} on",
                self.query.display()
            ))
            .error());
        }
        Ok(queries.values[from..to].to_vec())
    }

    /// The ids whose bits are set.
    fn allowed(&self, path: &Path) -> anyhow::Result<OrdinalSet> {
        let bits = fs_err::read(path)?;
        if bits.len() != self.n.div_ceil(8) {
            return Err(Failure::new(format!(
                "{} is {} bytes long, {} ids need {}",
                path.display(),
                bits.len(),
                self.n,
                self.n.div_ceil(8)
            ))
            .error());
        }
        let n = u32::try_from(self.n)?;
        Ok((0..n)
            .filter(|id| bits[*id as usize / 8] >> (id % 8) & 1 == 1)
            .collect())
    }
}

/// What is searched, for what, and how.
#[derive(Debug, Clone, Copy)]
struct Run<'a> {
    index: &'a Index,
    queries: &'a [f32],
    k: usize,
    filter: Filter<'a>,
}

/// What one pass over the queries took and found.
struct Pass {
    wall: Duration,
    cpu: Duration,
    /// `count x k`; -1 where nothing was found.
    ids: Vec<i32>,
}

impl<'a> Run<'a> {
    fn count(&self) -> usize {
        self.queries.len() / self.index.dim()
    }

    fn searcher(&self, setting: Setting) -> Searcher<'a> {
        Searcher {
            run: *self,
            ef: setting.ef,
            scratch: Scratch::new(),
            hits: Vec::new(),
        }
    }

    /// Answers all queries once, on `threads` threads with an equal share each. The clock starts
    /// when all have warmed up, and stops when the last is done.
    fn pass(&self, setting: Setting, threads: usize) -> anyhow::Result<Pass> {
        let mut ids = vec![-1_i32; self.count() * self.k];
        let share = self.count().div_ceil(threads);
        // A thread without queries would wait at the barrier for nothing.
        let crew = self.count().div_ceil(share.max(1));
        let barrier = std::sync::Barrier::new(crew + 1);
        let (wall, parts) = std::thread::scope(|scope| {
            let workers: Vec<_> = ids
                .chunks_mut((share * self.k).max(1))
                .enumerate()
                .map(|(worker, rows)| {
                    let barrier = &barrier;
                    scope.spawn(move || self.work(setting, worker * share, rows, barrier))
                })
                .collect();
            barrier.wait();
            let started = Instant::now();
            let parts: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            (started.elapsed(), parts)
        });
        let mut cpu = Duration::ZERO;
        for part in parts {
            cpu += part.map_err(|_| anyhow::anyhow!("a search thread panicked"))??;
        }
        Ok(Pass { wall, cpu, ids })
    }

    /// Answers the queries from `first` on into `rows`; the processor time that it took.
    fn work(
        &self,
        setting: Setting,
        first: usize,
        rows: &mut [i32],
        barrier: &std::sync::Barrier,
    ) -> anyhow::Result<Duration> {
        let mut searcher = self.searcher(setting);
        let warmed = searcher.warm_up(first);
        // Every worker arrives, or the others would wait for ever.
        barrier.wait();
        warmed?;
        let before = usage::thread_cpu()?;
        for (at, row) in rows.chunks_mut(self.k).enumerate() {
            for (id, hit) in row.iter_mut().zip(searcher.search(first + at)?) {
                *id = i32::try_from(hit.ordinal)?;
            }
        }
        Ok(usage::thread_cpu()?.saturating_sub(before))
    }

    /// Answers the queries one after another, each with its own clock.
    fn latency(&self, setting: Setting) -> anyhow::Result<Value> {
        let mut searcher = self.searcher(setting);
        searcher.warm_up(0)?;
        let mut micros = Vec::with_capacity(self.count());
        for at in 0..self.count() {
            let started = Instant::now();
            searcher.search(at)?;
            micros.push(started.elapsed().as_secs_f64() * 1e6);
        }
        micros.sort_unstable_by(f64::total_cmp);
        let mean = micros.iter().sum::<f64>() / micros.len() as f64;
        let at = |share: f64| percentile(&micros, share);
        Ok(json!({ "p50_us": at(0.5), "p99_us": at(0.99), "mean_us": mean }))
    }
}

/// One thread's way to search.
struct Searcher<'a> {
    run: Run<'a>,
    ef: usize,
    scratch: Scratch,
    hits: Vec<Hit>,
}

impl Searcher<'_> {
    /// Answers all queries, from `first` on, until [`WARM_UP`] is over.
    fn warm_up(&mut self, first: usize) -> anyhow::Result<()> {
        let (count, started) = (self.run.count(), Instant::now());
        for at in 0..count {
            if started.elapsed() > WARM_UP {
                break;
            }
            self.search((first + at) % count)?;
        }
        Ok(())
    }

    fn search(&mut self, query: usize) -> anyhow::Result<&[Hit]> {
        let dim = self.run.index.dim();
        let query = &self.run.queries[query * dim..(query + 1) * dim];
        let params = SearchParams {
            ef_search: self.ef,
            filter: self.run.filter,
            deadline: None,
            debias: None,
            cap: None,
        };
        self.run.index.search(
            query,
            self.run.k,
            &params,
            &mut self.scratch,
            &mut self.hits,
        )?;
        Ok(&self.hits)
    }
}

/// The smallest value that a share of the sorted ones does not exceed (nearest rank).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length is a length"
    )]
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_nearest_rank() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 0.5), 50.0);
        assert_eq!(percentile(&values, 0.99), 99.0);
        assert_eq!(percentile(&values[..1], 0.99), 1.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
