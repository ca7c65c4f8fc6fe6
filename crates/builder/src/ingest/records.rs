//! Listens sorted by user and item in bounded memory: runs go to a file, sorted by a thread of their own while more
//! are read, and are merged into one once all are there, for a training reads them several times.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use refrain_bundle::Column;

use super::log::{Listen, Log};

/// Least and most bytes of a run that are read at a time.
const READ_BYTES: (usize, usize) = (4 << 10, 256 << 10);

/// What sorting may use.
#[derive(Debug, Clone)]
pub struct Room {
    /// Bytes of listens held in memory at a time.
    pub bytes: usize,
    /// Where the others go: a file without a name there, gone with the process.
    pub dir: PathBuf,
}

impl Room {
    /// Listens held in memory unless told otherwise: 64 MiB.
    pub const BYTES: usize = 64 << 20;
}

impl Default for Room {
    /// [`Room::BYTES`], and the system's directory for what is temporary.
    fn default() -> Self {
        Self {
            bytes: Self::BYTES,
            dir: std::env::temp_dir(),
        }
    }
}

/// Listens in ascending order of user and item; like ones by count and the rest, so that the order of the
/// rows they came from does not show.
pub(crate) trait Records: Send + Sync {
    /// How many there are.
    fn len(&self) -> u64;

    /// Those at some places, as far as there are such; as often as it is called, and from any thread.
    fn part(&self, places: Range<u64>) -> io::Result<Sequence<'_>>;

    /// All of them.
    fn iter(&self) -> io::Result<Sequence<'_>> {
        self.part(0..self.len())
    }
}

/// Listens in their order, as they are read.
pub(crate) type Sequence<'a> = Box<dyn Iterator<Item = io::Result<Listen>> + 'a>;

/// Places in a file or memory as those of a slice of `len`, none where they are not.
fn within(places: &Range<u64>, len: usize) -> Range<usize> {
    let at = |place: u64| usize::try_from(place).map_or(len, |place| place.min(len));
    at(places.start)..at(places.end).max(at(places.start))
}

/// Takes listens in any order.
pub(crate) trait Sorter {
    fn push(&mut self, listen: Listen) -> io::Result<()>;

    fn finish(self: Box<Self>) -> io::Result<Box<dyn Records>>;
}

/// For listens with times and labels (context and session), or without; what it is not for, it drops.
pub(crate) fn sorter(times: bool, labels: bool, room: &Room) -> Box<dyn Sorter> {
    match width(times, labels) {
        3 => Box::new(Runs::<3>::new(room, times)),
        5 => Box::new(Runs::<5>::new(room, times)),
        _ => Box::new(Runs::<7>::new(room, times)),
    }
}

/// User, item, count, time in two, context, session; the first 3, 5 or 7 of them.
type Words<const W: usize> = [u32; W];

/// How many words a listen takes.
pub(crate) fn width(times: bool, labels: bool) -> usize {
    match (times, labels) {
        (false, false) => 3,
        (true, false) => 5,
        (_, true) => 7,
    }
}

/// All words of a listen. Listens are in the order of their words.
pub(crate) fn words_of(listen: &Listen) -> Words<7> {
    let time = listen.time_us.unwrap_or_default().cast_unsigned();
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    [
        listen.user,
        listen.item,
        listen.count.to_bits(),
        time as u32,
        (time >> 32) as u32,
        listen.context.unwrap_or(Log::NONE),
        listen.session.unwrap_or(Log::NONE),
    ]
}

/// The listen of at least three words.
fn listen(words: &[u32], times: bool) -> Listen {
    let known = |word: Option<&u32>| word.copied().filter(|&ordinal| ordinal != Log::NONE);
    let half = |at: usize| u64::from(words.get(at).copied().unwrap_or_default());
    Listen {
        user: words[0],
        item: words[1],
        count: f32::from_bits(words[2]),
        time_us: times.then(|| (half(4) << 32 | half(3)).cast_signed()),
        context: known(words.get(5)),
        session: known(words.get(6)),
    }
}

/// Sorted listens in a mapped file, [`width`] words each.
pub(crate) struct Mapped {
    pub(crate) words: Column<u32>,
    pub(crate) times: bool,
    pub(crate) labels: bool,
}

impl Mapped {
    pub(crate) fn rows(&self) -> std::slice::ChunksExact<'_, u32> {
        self.words
            .as_slice()
            .chunks_exact(width(self.times, self.labels))
    }
}

impl Records for Mapped {
    fn len(&self) -> u64 {
        self.rows().len() as u64
    }

    fn part(&self, places: Range<u64>) -> io::Result<Sequence<'_>> {
        let width = width(self.times, self.labels);
        let places = within(&places, self.rows().len());
        let words = &self.words.as_slice()[places.start * width..places.end * width];
        let rows = words.chunks_exact(width);
        Ok(Box::new(rows.map(|words| Ok(listen(words, self.times)))))
    }
}

struct Runs<const W: usize> {
    room: Room,
    times: bool,
    buffer: Vec<Words<W>>,
    /// Where what is beyond the room went.
    spilled: Option<Spilled<W>>,
    len: u64,
}

impl<const W: usize> Runs<W> {
    const BYTES: usize = W * size_of::<u32>();

    fn new(room: &Room, times: bool) -> Self {
        Self {
            room: room.clone(),
            times,
            buffer: Vec::new(),
            spilled: None,
            len: 0,
        }
    }

    fn capacity(&self) -> usize {
        (self.room.bytes / Self::BYTES).max(1)
    }

    /// What the buffer takes before it is spilled: all the room, or half of it while the other half is sorted.
    fn full(&self) -> usize {
        match self.spilled {
            None => self.capacity(),
            Some(_) => (self.capacity() / 2).max(1),
        }
    }

    fn spill(&mut self) -> io::Result<()> {
        match &mut self.spilled {
            Some(spilled) => spilled.add(&mut self.buffer),
            none => {
                let file = tempfile::tempfile_in(&self.room.dir)?;
                let spilled = none.insert(Spilled {
                    runs: Some(SortedRuns::none(file)),
                    sorting: None,
                });
                // Nothing else can be held beside a buffer that has all the room: from now on there are two of half.
                spilled.add(&mut self.buffer)?;
                spilled.wait()?;
                let half = self.full();
                let runs = self
                    .spilled
                    .as_mut()
                    .and_then(|spilled| spilled.runs.as_mut());
                runs.into_iter().for_each(|runs| runs.next.shrink_to(half));
                Ok(())
            }
        }
    }

    fn listen(&self, words: &Words<W>) -> Listen {
        listen(words, self.times)
    }
}

impl<const W: usize> Sorter for Runs<W> {
    fn push(&mut self, listen: Listen) -> io::Result<()> {
        if self.buffer.len() == self.buffer.capacity() {
            let most = self.full();
            if self.buffer.len() >= most {
                self.spill()?;
            } else {
                let more = self.buffer.len().clamp(1024, 1 << 20);
                let more = more.min(most - self.buffer.len());
                self.buffer.reserve_exact(more);
            }
        }
        let mut words = [0; W];
        words.copy_from_slice(&words_of(&listen)[..W]);
        self.buffer.push(words);
        self.len += 1;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> io::Result<Box<dyn Records>> {
        if self.spilled.is_none() {
            self.buffer.sort_unstable();
            return Ok(self);
        }
        self.spill()?;
        self.buffer = Vec::new();
        if let Some(spilled) = &mut self.spilled {
            spilled.wait()?;
            let runs = spilled.runs.take();
            spilled.runs = runs.map(|runs| runs.into_one(&self.room)).transpose()?;
        }
        Ok(self)
    }
}

impl<const W: usize> Records for Runs<W> {
    fn len(&self) -> u64 {
        self.len
    }

    fn part(&self, places: Range<u64>) -> io::Result<Sequence<'_>> {
        let runs = self
            .spilled
            .as_ref()
            .and_then(|spilled| spilled.runs.as_ref());
        let Some(runs) = runs else {
            let words = self.buffer[within(&places, self.buffer.len())].iter();
            return Ok(Box::new(words.map(|words| Ok(self.listen(words)))));
        };
        // The runs are one by now.
        let mut run = runs.part(places.start..places.end.min(self.len), READ_BYTES.1);
        let words = std::iter::from_fn(move || run.next().transpose());
        Ok(Box::new(
            words.map(|words| words.map(|words| self.listen(&words))),
        ))
    }
}

/// Listens that there was no room for.
struct Spilled<const W: usize> {
    /// `None` while a thread has them.
    runs: Option<SortedRuns<W>>,
    sorting: Option<JoinHandle<io::Result<SortedRuns<W>>>>,
}

impl<const W: usize> Spilled<W> {
    /// Has a run sorted and written; leaves an empty buffer.
    fn add(&mut self, run: &mut Vec<Words<W>>) -> io::Result<()> {
        self.wait()?;
        let Some(mut runs) = self.runs.take() else {
            return Err(io::Error::other("an earlier run could not be written"));
        };
        std::mem::swap(run, &mut runs.next);
        let sort = move || runs.write().map(|()| runs);
        self.sorting = Some(thread::Builder::new().name("sort".into()).spawn(sort)?);
        Ok(())
    }

    /// Until the last run is written.
    fn wait(&mut self) -> io::Result<()> {
        if let Some(sorting) = self.sorting.take() {
            let runs = sorting.join();
            let panicked = |_| io::Error::other("sorting a run panicked");
            self.runs = Some(runs.map_err(panicked)??);
        }
        Ok(())
    }
}

/// A file of sorted runs, one after another.
struct SortedRuns<const W: usize> {
    file: File,
    /// Held while the file is read from a place of it: it has one position.
    reading: Mutex<()>,
    /// How many records each has.
    lens: Vec<u64>,
    /// One that is yet to be sorted; its memory is used again.
    next: Vec<Words<W>>,
}

impl<const W: usize> SortedRuns<W> {
    fn none(file: File) -> Self {
        Self {
            file,
            reading: Mutex::new(()),
            lens: Vec::new(),
            next: Vec::new(),
        }
    }

    /// Fills `words` from a place in the file, in bytes.
    fn read(&self, from: u64, words: &mut [Words<W>]) -> io::Result<()> {
        // Whoever panicked while reading left nothing that matters.
        let _held = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = &self.file;
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(bytemuck::cast_slice_mut(words.as_flattened_mut()))
    }

    fn write(&mut self) -> io::Result<()> {
        self.next.sort_unstable();
        let bytes = bytemuck::cast_slice(self.next.as_flattened());
        self.file.write_all(bytes)?;
        self.lens.push(self.next.len() as u64);
        self.next.clear();
        Ok(())
    }

    /// The records at some places of the file, read so many bytes at a time.
    fn part(&self, places: Range<u64>, bytes: usize) -> Run<'_, W> {
        let left = places.end.saturating_sub(places.start);
        let most = usize::try_from(left).unwrap_or(usize::MAX);
        Run {
            runs: self,
            next: places.start * Runs::<W>::BYTES as u64,
            left,
            buffer: Vec::with_capacity((bytes / Runs::<W>::BYTES).clamp(1, most.max(1))),
            at: 0,
        }
    }

    /// The runs from their beginning, each read so many bytes at a time.
    fn of(&self, bytes: usize) -> impl Iterator<Item = Run<'_, W>> {
        let mut start = 0;
        self.lens.iter().map(move |&records| {
            let places = start..start + records;
            start = places.end;
            self.part(places, bytes)
        })
    }

    /// One sorted run of all, in another file.
    fn into_one(mut self, room: &Room) -> io::Result<Self> {
        self.next = Vec::new();
        if self.lens.len() < 2 {
            return Ok(self);
        }
        let each = room.bytes / (self.lens.len() + 1);
        let bytes = each.clamp(READ_BYTES.0, READ_BYTES.1);
        let mut merged = Merged {
            runs: Vec::with_capacity(self.lens.len()),
            heads: BinaryHeap::with_capacity(self.lens.len()),
        };
        for (at, mut run) in self.of(bytes).enumerate() {
            if let Some(head) = run.next()? {
                merged.heads.push(Reverse((head, at)));
            }
            merged.runs.push(run);
        }
        let mut file = BufWriter::with_capacity(bytes, tempfile::tempfile_in(&room.dir)?);
        for words in merged {
            file.write_all(bytemuck::cast_slice(&words?))?;
        }
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        Ok(Self {
            lens: vec![self.lens.iter().sum()],
            ..Self::none(file)
        })
    }
}

/// The records of one run that are still to come.
struct Run<'a, const W: usize> {
    runs: &'a SortedRuns<W>,
    /// Where those are that are not in the buffer, and how many.
    next: u64,
    left: u64,
    buffer: Vec<Words<W>>,
    at: usize,
}

impl<const W: usize> Run<'_, W> {
    fn next(&mut self) -> io::Result<Option<Words<W>>> {
        if self.at == self.buffer.len() {
            let room = self.buffer.capacity().max(1);
            let records = usize::try_from(self.left).map_or(room, |left| left.min(room));
            if records == 0 {
                return Ok(None);
            }
            self.buffer.resize(records, [0; W]);
            self.at = 0;
            self.runs.read(self.next, &mut self.buffer)?;
            self.next += size_of_val(&*self.buffer) as u64;
            self.left -= records as u64;
        }
        self.at += 1;
        Ok(Some(self.buffer[self.at - 1]))
    }
}

/// Runs merged into one.
struct Merged<'a, const W: usize> {
    runs: Vec<Run<'a, W>>,
    /// The first record of each run that is not at its end, the smallest on top.
    heads: BinaryHeap<Reverse<(Words<W>, usize)>>,
}

impl<const W: usize> Iterator for Merged<'_, W> {
    type Item = io::Result<Words<W>>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut top = self.heads.peek_mut()?;
        let Reverse((smallest, at)) = *top;
        match self.runs[at].next() {
            Ok(Some(head)) => *top = Reverse((head, at)),
            Ok(None) => drop(std::collections::binary_heap::PeekMut::pop(top)),
            Err(error) => return Some(Err(error)),
        }
        Some(Ok(smallest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listens(rows: &[(u32, u32, u8, i64, Option<u32>)]) -> Vec<Listen> {
        let listen =
            |&(user, item, count, time, context): &(u32, u32, u8, i64, Option<u32>)| Listen {
                user,
                item,
                count: f32::from(count) + 0.5,
                time_us: Some(time),
                context,
                session: context.map(|context| context + 1),
            };
        rows.iter().map(listen).collect()
    }

    fn sorted(listens: &[Listen], bytes: usize, times: bool, labels: bool) -> Vec<Listen> {
        let room = Room {
            bytes,
            ..Room::default()
        };
        let mut sorter = sorter(times, labels, &room);
        for &listen in listens {
            sorter.push(listen).unwrap();
        }
        let records = sorter.finish().unwrap();
        let read = || -> Vec<Listen> { records.iter().unwrap().map(Result::unwrap).collect() };
        assert_eq!(records.len(), listens.len() as u64);
        assert_eq!(read(), read());
        let all = read();
        for from in (0..=all.len()).step_by(7) {
            let some = from..(from + 5).min(all.len());
            let places = from as u64..some.end as u64;
            let part: Vec<Listen> = records.part(places).unwrap().map(Result::unwrap).collect();
            assert_eq!(part, all[some]);
        }
        all
    }

    proptest! {
        #[test]
        fn the_same_whatever_the_memory_and_the_order(
            rows in prop::collection::vec(
                (0u32..9, 0u32..5, any::<u8>(), any::<i64>(), prop::option::of(0u32..3)), 0..300),
            bytes in 1usize..4_000,
        ) {
            let mut listens = listens(&rows);
            let whole = sorted(&listens, 1 << 20, true, true);
            prop_assert!(whole.is_sorted_by_key(|listen| (listen.user, listen.item)));
            listens.reverse();
            prop_assert_eq!(&sorted(&listens, bytes, true, true), &whole);
            let by_bits = |listen: &Listen| {
                (listen.user, listen.item, listen.count.to_bits(), listen.time_us, listen.context)
            };
            let mut back = whole;
            back.sort_unstable_by_key(by_bits);
            listens.sort_unstable_by_key(by_bits);
            prop_assert_eq!(&back, &listens);
            for listen in &mut listens {
                (listen.context, listen.session) = (None, None);
            }
            let mut timed = sorted(&listens, bytes, true, false);
            timed.sort_unstable_by_key(by_bits);
            prop_assert_eq!(&timed, &listens);
            listens.iter_mut().for_each(|listen| listen.time_us = None);
            let mut bare = sorted(&listens, bytes, false, false);
            bare.sort_unstable_by_key(by_bits);
            prop_assert_eq!(bare, listens);
        }
    }

    #[test]
    fn no_more_is_held_than_there_is_room_for() {
        const LISTENS: usize = 1000;
        let room = Room {
            bytes: LISTENS * Runs::<3>::BYTES,
            ..Room::default()
        };
        let mut runs = Runs::<3>::new(&room, false);
        let all = listens(&[(1, 2, 3, 0, None)]);
        for pushed in 1..=5 * LISTENS {
            runs.push(all[0]).unwrap();
            let most = if pushed <= LISTENS {
                LISTENS
            } else {
                LISTENS / 2
            };
            assert!(runs.buffer.capacity() <= most, "after {pushed}");
        }
        let spilled = runs.spilled.as_mut().unwrap();
        spilled.wait().unwrap();
        let waiting = spilled.runs.as_ref().unwrap();
        assert!(waiting.next.capacity() <= LISTENS / 2);
        assert_eq!(waiting.lens, [1000, 500, 500, 500, 500, 500, 500, 500]);
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let room = Room {
            bytes: 100,
            dir: "/not/there".into(),
        };
        let mut sorter = sorter(false, false, &room);
        let all = listens(&[(0, 0, 1, 0, None); 20]);
        assert!(all.iter().any(|&listen| sorter.push(listen).is_err()));
    }
}
