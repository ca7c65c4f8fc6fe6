//! Listens that were read before, kept sorted in a file: a log that has grown is read from where it ended.
//!
//! What comes out is what reading everything gives: ids are numbered in order of first appearance, which what is added
//! later does not change. So what is kept is of use as long as the files that were read are still the first ones, byte for
//! byte, but for the end of the last one, which may have grown if it is plain text. Every byte is compared by its digest.
//! Anything else, a damaged file or another version of the program, and all is read.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use refrain_bundle::{
    Column, Digest, FileDigest, Hasher, OpenMode, SectionFile, SectionSpec, SectionWriter,
    StringTable, WriteError, both,
};
use serde::{Deserialize, Serialize};

use super::error::IngestError;
use super::fields;
use super::listens::{Listens, read_sorted};
use super::log::Log;
use super::options::{Field, ReadOptions};
use super::records::{Mapped, Records, Room, Sequence, width, words_of};
use super::report::{BadRow, FileReport, ReadReport};
use super::sniff;
use super::sorted::SortedLog;
use super::source::{self, Source};
use super::table::{Before, FileEnd, ProgressFn, Reading, Tail, TextEnd};
use crate::Dictionary;

/// As [`read_sorted`](super::read_sorted), but what is read is kept in `dir`, which is made, and of a log that was
/// kept there before only what has been added is read. One file is kept a log: of other first files, options or labels
/// another. It has 12 to 28 bytes a listen, and each id once.
///
/// The same whether anything was kept or not. O(bytes) to compare what was read before, as fast as they come from
/// the disk, and O(listens) to merge.
///
/// # Errors
/// Those of [`read_sorted`](super::read_sorted), and that the file cannot be written.
pub fn read_kept(
    paths: &[PathBuf],
    options: &ReadOptions,
    labelled: bool,
    room: Room,
    dir: &Path,
    progress: ProgressFn<'_>,
) -> Result<SortedLog, IngestError> {
    let keep = |source| IngestError::Keep {
        dir: dir.to_owned(),
        source,
    };
    fs_err::create_dir_all(dir).map_err(keep)?;
    let place = Place::new(dir, paths, options, labelled).map_err(keep)?;
    let mut known = place.load(paths)?;
    let whole = |known: &mut Known| known.grown.is_none() && known.files.len() == paths.len();
    if let Some(known) = known.take_if(whole) {
        return Ok(known.into_log());
    }
    let (mut sink, before, mut files, grown, records) = match known {
        None => {
            let sink = Listens::to_sort(labelled, room.clone());
            (sink, Before::default(), Vec::new(), None, None)
        }
        Some(mut known) => {
            let before = Before {
                report: std::mem::take(&mut known.names.report),
                tail: known.grown.as_ref().map(|grown| grown.from),
            };
            let times = known.records.times;
            let sink = Listens::to_sort_on(known.names, times, labelled, room.clone());
            (sink, before, known.files, known.grown, Some(known.records))
        }
    };
    let rows_before = before.report.rows;
    let Reading { report, ends } = sink.read_after(before, paths, options, progress)?;
    let (mut names, added) = sink.into_sorted()?;
    names.report = ReadReport {
        rows_before,
        ..report
    };
    // What was compared of a file that has grown need not be read again.
    let mut begun = grown.map(|grown| grown.begun);
    for (path, end) in paths.iter().skip(files.len()).zip(ends) {
        let begun = begun.take().unwrap_or_default();
        let digested = digest(path, begun, end.bytes);
        let digest = digested.map_err(|source| IngestError::Open { source })?;
        files.push(KeptFile::new(path, digest.finish(), end));
    }
    let head = place.head(&names, files).map_err(keep)?;
    place
        .save(&head, &names, records.as_ref(), &*added)
        .map_err(keep)?;
    drop((records, added));
    let Some(words) = place.listens(&head).map_err(keep)? else {
        // Somebody else keeps another state of the log there meanwhile.
        return read_sorted(paths, options, labelled, room, progress);
    };
    let records = Mapped {
        words,
        times: names.time_us.is_some(),
        labels: labelled,
    };
    Ok(SortedLog::new(names, Box::new(records)))
}

const FORMAT: u32 = 1;

/// Whoever has not written for so long is gone.
const LEFT: Duration = Duration::from_secs(3600);

/// What is kept besides the listens and the names.
#[derive(Serialize, Deserialize)]
struct Head {
    format: u32,
    program: String,
    options: ReadOptions,
    labelled: bool,
    times: bool,
    contexts: bool,
    sessions: bool,
    files: Vec<KeptFile>,
    reports: Vec<KeptReport>,
    rows: u64,
    zero_counts: u64,
    bad_rows: u64,
    /// File, line and problem.
    first_bad: Vec<(usize, u64, String)>,
}

/// A file that was read.
#[derive(Serialize, Deserialize)]
struct KeptFile {
    path: String,
    digest: FileDigest,
    /// Lines and dialect of plain text that ended with its line.
    grows_from: Option<(u64, String)>,
}

#[derive(Serialize, Deserialize)]
struct KeptReport {
    format: String,
    columns: Vec<(Field, String)>,
    rows: u64,
}

impl KeptFile {
    fn new(path: &Path, digest: FileDigest, end: FileEnd) -> Self {
        let grows = |text: TextEnd| text.whole.then_some((text.lines, text.dialect));
        Self {
            path: whole_path(path),
            digest,
            grows_from: end.text.and_then(grows),
        }
    }
}

/// What a file is known by: the same wherever the job was started from.
fn whole_path(path: &Path) -> String {
    let whole = std::path::absolute(path);
    let whole = whole.as_deref().unwrap_or(path);
    whole.to_string_lossy().into_owned()
}

/// Where a log is kept.
struct Place {
    path: PathBuf,
    options: ReadOptions,
    labelled: bool,
}

/// A log that was kept, and what it was read from.
struct Known {
    names: Log,
    records: Mapped,
    /// Those that are as they were: all but one that has grown.
    files: Vec<KeptFile>,
    grown: Option<Grown>,
}

/// A file that has grown.
struct Grown {
    from: Tail,
    /// The digest of what was read of it.
    begun: Hasher,
}

impl Known {
    fn into_log(self) -> SortedLog {
        let mut names = self.names;
        names.report.rows_before = names.report.rows;
        SortedLog::new(names, Box::new(self.records))
    }
}

impl Place {
    fn new(
        dir: &Path,
        paths: &[PathBuf],
        options: &ReadOptions,
        labelled: bool,
    ) -> io::Result<Self> {
        let first = paths.first().map(|path| whole_path(path));
        let of = serde_json::to_vec(&(first, options, labelled))?;
        Ok(Self {
            path: dir.join(format!("listens-{}.rfs", Digest::of(&of).short(16))),
            options: options.clone(),
            labelled,
        })
    }

    /// What is kept there of these files. An error is one of the files.
    fn load(&self, paths: &[PathBuf]) -> Result<Option<Known>, IngestError> {
        let Some((file, mut head)) = self.open() else {
            return Ok(None);
        };
        let same = head.format == FORMAT
            && head.program == env!("CARGO_PKG_VERSION")
            && head.options == self.options
            && head.labelled == self.labelled
            && head.files.len() <= paths.len()
            && head.files.len() == head.reports.len();
        let Some(last) = head.files.len().checked_sub(1).filter(|_| same) else {
            return Ok(None);
        };
        let mut grown = None;
        for (at, (kept, path)) in head.files.iter().zip(paths).enumerate() {
            let Some((begun, has_grown)) = self.unchanged(kept, path)? else {
                return Ok(None);
            };
            match (&kept.grows_from, has_grown) {
                (_, false) => {}
                (&Some((lines, _)), true) if at == last => {
                    let bytes = kept.digest.bytes;
                    let from = Tail { bytes, lines };
                    grown = Some(Grown { from, begun });
                }
                _ => return Ok(None),
            }
        }
        if grown.is_some() {
            head.files.pop();
        }
        Ok(known(&file, head, paths, grown))
    }

    fn open(&self) -> Option<(SectionFile, Head)> {
        let file = SectionFile::open(&self.path, OpenMode::Map).ok()?;
        file.verify().ok()?;
        let head = serde_json::from_slice(&file.section("head")?).ok()?;
        Some((file, head))
    }

    /// Whether a file begins as it was read: the digest of that, and whether more has come. `None`: it is another.
    fn unchanged(
        &self,
        kept: &KeptFile,
        path: &Path,
    ) -> Result<Option<(Hasher, bool)>, IngestError> {
        let open_error = |source| IngestError::Open { source };
        let len = fs_err::metadata(path).map_err(open_error)?.len();
        if kept.path != whole_path(path) || len < kept.digest.bytes {
            return Ok(None);
        }
        let begun = digest(path, Hasher::default(), kept.digest.bytes).map_err(open_error)?;
        if begun.finish() != kept.digest {
            return Ok(None);
        }
        let grown = len > kept.digest.bytes;
        if let (true, Some((_, dialect))) = (grown, &kept.grows_from) {
            // With more to see, it might be taken for something else.
            let Source::Text(text) = source::open(path, &std::sync::Arc::default())? else {
                return Ok(None);
            };
            let sniffed = sniff::sniff(
                path,
                &text.sample,
                text.sample_is_all,
                fields::LISTENS,
                &self.options,
            )?;
            if format!("{sniffed:?}") != *dialect {
                return Ok(None);
            }
        }
        Ok(Some((begun, grown)))
    }

    /// The head of a log of these files, encoded. The same log, files and options: the same head.
    fn head(&self, names: &Log, files: Vec<KeptFile>) -> io::Result<Vec<u8>> {
        let report = &names.report;
        let position = |path: &Path| report.files.iter().position(|file| file.path == path);
        let head = Head {
            format: FORMAT,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            options: self.options.clone(),
            labelled: self.labelled,
            times: names.time_us.is_some(),
            contexts: names.context.is_some(),
            sessions: names.session.is_some(),
            files,
            reports: report.files.iter().map(KeptReport::new).collect(),
            rows: report.rows,
            zero_counts: report.zero_counts,
            bad_rows: report.bad_rows,
            first_bad: report
                .first_bad
                .iter()
                .map(|bad| {
                    let file = position(&bad.path).unwrap_or_default();
                    (file, bad.line, bad.problem.clone())
                })
                .collect(),
        };
        Ok(serde_json::to_vec(&head)?)
    }

    /// The listens of the file that has this head; `None`: it has another.
    fn listens(&self, head: &[u8]) -> io::Result<Option<Column<u32>>> {
        let file = SectionFile::open(&self.path, OpenMode::Map).map_err(io::Error::other)?;
        if file.section("head").as_deref() != Some(head) {
            return Ok(None);
        }
        file.column("listens").map(Some).map_err(io::Error::other)
    }

    fn save(
        &self,
        head: &[u8],
        names: &Log,
        before: Option<&Mapped>,
        added: &dyn Records,
    ) -> io::Result<()> {
        let width = width(names.time_us.is_some(), self.labelled);
        let mut merged = Merged::new(before, added, width)?;
        // Of killed runs; who else is at it writes all the time.
        SectionWriter::remove_left(&self.path, LEFT)?;
        SectionWriter::write_cache(&self.path, |file| {
            file.add(SectionSpec::new("head"), head)?;
            for (section, strings) in [
                ("users", &names.users),
                ("items", &names.items),
                ("contexts", &names.contexts),
                ("sessions", &names.sessions),
            ] {
                StringTable::write(file, section, strings.iter())?;
            }
            let described = || names.described.iter();
            StringTable::write(file, "described", described().map(|(id, _)| id))?;
            StringTable::write(file, "artists", described().map(|(_, item)| &*item.artist))?;
            StringTable::write(file, "titles", described().map(|(_, item)| &*item.title))?;
            file.add_pieces(SectionSpec::new("listens").of::<u32>(), |piece| {
                merged.next_piece(piece).map_err(Failure::Io)
            })
        })
        .map_err(|error| match error {
            Failure::Io(error) => error,
            Failure::Write(error) => io::Error::other(error),
        })
    }
}

enum Failure {
    Io(io::Error),
    Write(WriteError),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

impl KeptReport {
    fn new(file: &FileReport) -> Self {
        let columns = file.columns.iter().filter_map(|(field, name)| {
            let known = Field::ALL.iter().find(|known| known.as_str() == *field)?;
            Some((*known, name.clone()))
        });
        Self {
            format: file.format.clone(),
            columns: columns.collect(),
            rows: file.rows,
        }
    }

    fn of(self, path: &Path) -> FileReport {
        let columns = self.columns.into_iter();
        FileReport {
            path: path.to_owned(),
            format: self.format,
            columns: columns
                .map(|(field, name)| (field.as_str(), name))
                .collect(),
            rows: self.rows,
        }
    }
}

/// What a file says whose head is that of these files; `None`: it contradicts itself.
fn known(file: &SectionFile, head: Head, paths: &[PathBuf], grown: Option<Grown>) -> Option<Known> {
    let strings = |section: &str| -> Option<Dictionary> {
        let table = StringTable::open(file, section).ok()?;
        let mut all = Dictionary::with_capacity(table.len() as usize);
        for at in 0..table.len() {
            (all.insert(table.get(at)?) == Some(at)).then_some(())?;
        }
        Some(all)
    };
    // Who asks for what lies anywhere waits: two tables wait at once.
    let (users, items) = both(|| strings("users"), || strings("items"));
    let mut names = Log {
        users: users?,
        items: items?,
        contexts: strings("contexts")?,
        sessions: strings("sessions")?,
        time_us: head.times.then(Vec::new),
        context: head.contexts.then(Vec::new),
        session: head.sessions.then(Vec::new),
        ..Log::default()
    };
    let table = |section| StringTable::open(file, section).ok();
    let (ids, artists, titles) = (table("described")?, table("artists")?, table("titles")?);
    for at in 0..ids.len() {
        let item = names.described.entry(ids.get(at)?)?;
        artists.get(at)?.clone_into(&mut item.artist);
        titles.get(at)?.clone_into(&mut item.title);
    }
    let records = Mapped {
        words: file.column("listens").ok()?,
        times: head.times,
        labels: head.labelled,
    };
    let (users, items) = (names.users.len(), names.items.len());
    let label = |word: Option<&u32>, names: &Dictionary| {
        word.is_none_or(|&at| at == Log::NONE || (at as usize) < names.len())
    };
    let sound = |row: &[u32]| {
        let count = f32::from_bits(row[2]);
        (row[0] as usize) < users
            && (row[1] as usize) < items
            && count.is_finite()
            && count > 0.0
            && label(row.get(5), &names.contexts)
            && label(row.get(6), &names.sessions)
    };
    if !records.rows().remainder().is_empty() || !records.rows().all(sound) {
        return None;
    }
    let reports = head.reports.into_iter().zip(paths);
    names.report = ReadReport {
        files: reports.map(|(report, path)| report.of(path)).collect(),
        rows: head.rows,
        zero_counts: head.zero_counts,
        bad_rows: head.bad_rows,
        first_bad: head
            .first_bad
            .into_iter()
            .map(|(file, line, problem)| {
                Some(BadRow {
                    path: paths.get(file)?.clone(),
                    line,
                    problem,
                })
            })
            .collect::<Option<_>>()?,
        ..ReadReport::default()
    };
    Some(Known {
        names,
        records,
        files: head.files,
        grown,
    })
}

/// The digest of the first bytes of a file, of which some were taken before.
fn digest(path: &Path, mut begun: Hasher, bytes: u64) -> io::Result<Hasher> {
    let from = begun.finish().bytes;
    let mut file = fs_err::File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    begun.read(&mut file.take(bytes.saturating_sub(from)))?;
    Ok(begun)
}

/// Listens that were kept and listens that were added, merged.
struct Merged<'a> {
    /// The words of those that are left.
    before: &'a [u32],
    added: Sequence<'a>,
    /// The next one that was added.
    next: Option<[u32; 7]>,
    width: usize,
}

/// Bytes that are merged at a time.
const PIECE: usize = 256 << 10;

impl<'a> Merged<'a> {
    fn new(before: Option<&'a Mapped>, added: &'a dyn Records, width: usize) -> io::Result<Self> {
        let mut this = Self {
            before: before.map_or(&[], |before| before.words.as_slice()),
            added: added.iter()?,
            next: None,
            width,
        };
        this.advance()?;
        Ok(this)
    }

    fn advance(&mut self) -> io::Result<()> {
        self.next = self.added.next().transpose()?.as_ref().map(words_of);
        Ok(())
    }

    /// Appends some of what is left.
    fn next_piece(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        while piece.len() < PIECE && (self.next.is_some() || !self.before.is_empty()) {
            let most =
                (self.before.len() / self.width).min(PIECE / (self.width * size_of::<u32>()) + 1);
            let rows = self.before_the_next(most);
            let (before, rest) = self.before.split_at(rows * self.width);
            piece.extend_from_slice(bytemuck::cast_slice(before));
            self.before = rest;
            // Unless there are more before it.
            if let Some(next) = self.next.filter(|_| rows < most || rest.is_empty()) {
                piece.extend_from_slice(bytemuck::cast_slice(&next[..self.width]));
                self.advance()?;
            }
        }
        Ok(())
    }

    /// How many of `most` come before the next one that was added: long runs, mostly, so the end is looked for in
    /// steps that double.
    fn before_the_next(&self, most: usize) -> usize {
        let width = self.width;
        let Some(next) = &self.next else { return most };
        let comes_before = |row: usize| self.before[row * width..][..width] <= next[..width];
        let (mut rows, mut step) = (0, 1);
        while rows + step <= most && comes_before(rows + step - 1) {
            rows += step;
            step *= 2;
        }
        while step > 0 {
            if rows + step <= most && comes_before(rows + step - 1) {
                rows += step;
            }
            step /= 2;
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;
    use crate::ingest::Listen;
    use crate::ingest::tests::gzip;

    /// All that a log has: listens, names, report.
    type All = (Vec<Listen>, Log, ReadReport);

    fn all(log: SortedLog) -> (All, u64) {
        let listens = log.listens().unwrap().map(Result::unwrap).collect();
        assert_eq!(log.len(), log.listens().unwrap().count() as u64);
        let mut names = log.into_names();
        let report = std::mem::take(&mut names.report);
        let before = report.rows_before;
        let report = ReadReport {
            rows_before: 0,
            ..report
        };
        ((listens, names, report), before)
    }

    struct Place {
        dir: tempfile::TempDir,
        options: ReadOptions,
        labelled: bool,
    }

    impl Place {
        fn new() -> Self {
            let options = ReadOptions {
                max_bad_rows: 10_000,
                ..ReadOptions::default()
            };
            Self {
                dir: tempfile::tempdir().unwrap(),
                options,
                labelled: true,
            }
        }

        fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
            let path = self.dir.path().join(name);
            fs_err::write(&path, bytes).unwrap();
            path
        }

        fn room(&self) -> Room {
            // So little that much goes to files.
            Room {
                bytes: 400,
                dir: self.dir.path().to_owned(),
            }
        }

        fn kept(&self) -> PathBuf {
            self.dir.path().join("kept")
        }

        fn read_kept(&self, paths: &[PathBuf]) -> Result<SortedLog, IngestError> {
            let (options, dir) = (&self.options, self.kept());
            read_kept(
                paths,
                options,
                self.labelled,
                self.room(),
                &dir,
                &|done, total| {
                    assert!(done <= total, "{done} of {total} bytes");
                },
            )
        }

        /// Reads what is kept and what was added, or fails, as it does without; the rows that were read before.
        fn agrees(&self, paths: &[PathBuf]) -> u64 {
            let plain = read_sorted(paths, &self.options, self.labelled, self.room(), &|_, _| {});
            match (self.read_kept(paths), plain) {
                (Ok(kept), Ok(plain)) => {
                    let ((kept, before), (plain, _)) = (all(kept), all(plain));
                    assert_eq!(kept.0, plain.0);
                    assert_eq!(kept.2, plain.2);
                    assert!(kept.1.same_listens(&plain.1));
                    assert_eq!(kept.1.time_us, plain.1.time_us);
                    before
                }
                (Err(kept), Err(plain)) => {
                    assert_eq!(kept.to_string(), plain.to_string());
                    0
                }
                (kept, plain) => panic!("{:?} {:?}", kept.err(), plain.err()),
            }
        }
    }

    fn csv(header: bool, rows: &[(u8, u8, u8, u8)]) -> String {
        let header = if header {
            "user,item,count,time,context,artist\n"
        } else {
            ""
        };
        let row = |&(user, item, count, context): &(u8, u8, u8, u8)| match context {
            // One that is bad, one that goes on in the next line, blank lines.
            0 => "what is this\n".to_owned(),
            1 => format!("u{user},i{item},{count},17000{item},\"sleep\nor rest\",a{item}\n"),
            2 => format!("\nu{user},i{item},{count},17000{count},,\n"),
            _ => format!("u{user},i{item},{count},1700000,c{context},a{user}\n"),
        };
        header.to_owned() + &rows.iter().map(row).collect::<String>()
    }

    fn rows() -> impl Strategy<Value = Vec<(u8, u8, u8, u8)>> {
        prop::collection::vec((0_u8..6, 0_u8..9, 0_u8..3, 0_u8..6), 0..60)
    }

    proptest! {
        /// A file grows by any number of bytes, in the midst of lines and of quotes too, and others come behind it.
        #[test]
        fn whatever_was_kept_the_result_is_that_of_reading_all(
            rows in rows(), more in rows(), header in any::<bool>(), labelled in any::<bool>(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        ) {
            let place = Place { labelled, ..Place::new() };
            let text = csv(header, &rows);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            cuts.sort_unstable();
            let mut paths = Vec::new();
            for cut in cuts.into_iter().chain([text.len()]) {
                paths = vec![place.write("log.csv", &text.as_bytes()[..cut])];
                place.agrees(&paths);
                place.agrees(&paths);
            }
            paths.push(place.write("next.csv.gz", gzip(csv(header, &more).as_bytes())));
            place.agrees(&paths);
            paths.push(place.write("last.csv", csv(header, &rows)));
            place.agrees(&paths);
            paths.remove(1);
            place.agrees(&paths);
        }
    }

    fn good(users: std::ops::Range<u32>) -> String {
        let row = |user: u32| format!("u{user},i{},1,1700000{user},,\n", user % 7);
        users.map(row).collect()
    }

    const HEADER: &str = "user,item,count,time,context,artist\n";

    #[test]
    fn only_what_was_added_is_read() {
        let place = Place::new();
        let log = place.write("log.csv", format!("{HEADER}{}", good(0..50)));
        let paths = [log.clone()];
        assert_eq!(place.agrees(&paths), 0);
        assert_eq!(place.agrees(&paths), 50);
        // The same file by another name, as from another directory.
        assert_eq!(place.agrees(&[place.dir.path().join(".//log.csv")]), 50);
        let mut file = fs_err::OpenOptions::new().append(true).open(&log).unwrap();
        file.write_all(good(40..60).as_bytes()).unwrap();
        assert_eq!(place.agrees(&paths), 50);
        assert_eq!(place.agrees(&paths), 70);
        // One whose last line may go on is read again when it does.
        file.write_all(b"u1,i1,1,17000001,,").unwrap();
        assert_eq!(place.agrees(&paths), 70);
        assert_eq!(place.agrees(&paths), 71);
        file.write_all(b"artist\nu2,i1,1,17000001,,\n").unwrap();
        assert_eq!(place.agrees(&paths), 0);
        assert_eq!(place.agrees(&paths), 72);
        // Files behind it, and each log for itself.
        let next = place.write(
            "next.csv.gz",
            gzip(format!("{HEADER}{}", good(55..90)).as_bytes()),
        );
        let two = [log.clone(), next.clone()];
        assert_eq!(place.agrees(&two), 72);
        assert_eq!(place.agrees(&two), 107);
        assert_eq!(place.agrees(&[next]), 0);
        assert_eq!(place.agrees(&two), 107);
        assert_eq!(fs_err::read_dir(place.kept()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_not_the_beginning_of_the_log_is_read_again() {
        let text = format!("{HEADER}{}", good(0..50));
        for change in 0..6 {
            let mut place = Place::new();
            let log = place.write("log.csv", &text);
            let next = place.write("next.csv", format!("{HEADER}{}", good(50..60)));
            let mut paths = vec![log.clone(), next];
            place.agrees(&paths);
            match change {
                // One byte of another listen, the first file grown or shorter, fewer files, other options, no labels.
                0 => _ = place.write("log.csv", text.replace("u17,", "u71,")),
                1 => _ = place.write("log.csv", format!("{text}{}", good(1..2))),
                2 => _ = place.write("log.csv", format!("{HEADER}{}", good(0..49))),
                3 => _ = paths.pop(),
                4 => place.options.max_bad_rows += 1,
                _ => place.labelled = false,
            }
            assert_eq!(place.agrees(&paths), 0, "change {change}");
        }
    }

    #[test]
    fn more_to_see_may_change_what_a_file_is_taken_for() {
        let place = Place::new();
        // A table of two columns, until a line shows that each is of a user and items.
        let paths = [place.write("log", "a x\nb y\n")];
        place.agrees(&paths);
        let mut file = fs_err::OpenOptions::new()
            .append(true)
            .open(&paths[0])
            .unwrap();
        file.write_all(b"c x\n").unwrap();
        assert_eq!(place.agrees(&paths), 2);
        file.write_all(b"c x y z\n").unwrap();
        assert_eq!(place.agrees(&paths), 0);
    }

    #[test]
    fn a_damaged_file_is_read_past() {
        let place = Place::new();
        let paths = [place.write("log.csv", format!("{HEADER}{}", good(0..50)))];
        place.agrees(&paths);
        let entry = fs_err::read_dir(place.kept()).unwrap().next().unwrap();
        let path = entry.unwrap().path();
        let whole = fs_err::read(&path).unwrap();
        for at in (0..whole.len()).step_by(1 + whole.len() / 300) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x20;
            for damaged in [&flipped[..], &whole[..at]] {
                // A mapped file is never changed in place.
                fs_err::remove_file(&path).unwrap();
                fs_err::write(&path, damaged).unwrap();
                assert_eq!(place.agrees(&paths), 0, "byte {at}");
                assert_eq!(place.agrees(&paths), 50);
            }
        }
    }

    #[test]
    fn what_a_killed_run_left_goes_in_time() {
        let place = Place::new();
        let log = place.write("log.csv", format!("{HEADER}{}", good(0..50)));
        place.agrees(std::slice::from_ref(&log));
        let entry = fs_err::read_dir(place.kept()).unwrap().next().unwrap();
        let name = entry.unwrap().file_name();
        let left = |id| {
            let name = format!(".{}.tmp-{id}", name.to_string_lossy());
            let path = place.kept().join(name);
            fs_err::write(&path, "half").unwrap();
            path
        };
        let (old, new) = (left("1-1"), left("2-2"));
        let long_ago = std::time::SystemTime::now() - 2 * LEFT;
        let file = fs_err::OpenOptions::new().append(true).open(&old).unwrap();
        file.file().set_modified(long_ago).unwrap();
        place.write("log.csv", format!("{HEADER}{}", good(0..51)));
        assert_eq!(place.agrees(&[log]), 50);
        assert_eq!((old.exists(), new.exists()), (false, true));
    }

    #[test]
    fn listens_are_taken_only_with_their_head() {
        let place = Place::new();
        let paths = [place.write("log.csv", format!("{HEADER}{}", good(0..50)))];
        place.agrees(&paths);
        let kept = super::Place::new(&place.kept(), &paths, &place.options, place.labelled);
        let kept = kept.unwrap();
        let head = kept.open().unwrap().0.section("head").unwrap();
        assert!(kept.listens(&head).unwrap().is_some());
        assert!(kept.listens(b"of somebody else").unwrap().is_none());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_said() {
        let place = Place::new();
        let log = place.write("log.csv", format!("{HEADER}{}", good(0..50)));
        place.write("kept", "a file");
        let error = place.read_kept(&[log]).err().unwrap().to_string();
        assert!(error.contains("cannot keep listens in"), "{error}");
    }
}
