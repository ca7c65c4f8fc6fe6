//! Rows on their way to the thread that writes them.
//!
//! A request puts its row down and goes on: it wakes nobody, for that costs more than the row. The writer
//! comes by itself, when it is time to bring rows to disk; it is called when there are enough for a frame, or
//! somebody waits.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Hears whether rows are on disk.
pub(super) type Done = oneshot::Sender<Result<(), String>>;

#[derive(Debug)]
pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    call: Condvar,
    /// Most rows that wait.
    most: usize,
    /// Rows for which the writer is called.
    enough: usize,
}

/// What the writer finds.
#[derive(Debug)]
pub(super) struct Waiting<T> {
    pub(super) rows: Vec<T>,
    /// Those who wait until these rows are on disk.
    pub(super) done: Vec<Done>,
    /// No more will come.
    pub(super) stop: bool,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            done: Vec::new(),
            stop: false,
        }
    }
}

impl<T> Queue<T> {
    pub(super) fn new(most: usize, enough: usize) -> Self {
        Self {
            waiting: Mutex::default(),
            call: Condvar::new(),
            most,
            enough,
        }
    }

    /// Puts a row down. Gives it back when there is no room, or nobody to write it any more.
    pub(super) fn put(&self, row: T) -> Result<(), T> {
        let mut waiting = self.lock();
        if waiting.stop || waiting.rows.len() >= self.most {
            return Err(row);
        }
        waiting.rows.push(row);
        let call = waiting.rows.len() == self.enough;
        drop(waiting);
        if call {
            self.call.notify_one();
        }
        Ok(())
    }

    /// Puts rows down and calls the writer, who says when they are on disk. All or none find room; more than
    /// there ever is find it when nothing else waits.
    pub(super) fn put_and_wait(&self, rows: Vec<T>, done: Done) -> Result<(), Vec<T>> {
        let mut waiting = self.lock();
        let room = waiting.rows.is_empty() || waiting.rows.len() + rows.len() <= self.most;
        if waiting.stop || !room {
            return Err(rows);
        }
        waiting.rows.extend(rows);
        waiting.done.push(done);
        drop(waiting);
        self.call.notify_one();
        Ok(())
    }

    /// Takes no more, and calls the writer a last time.
    pub(super) fn stop(&self) {
        self.lock().stop = true;
        self.call.notify_one();
    }

    /// All that waits, after `patience`, or as soon as there is enough or somebody asked for it.
    pub(super) fn take(&self, patience: Duration) -> Waiting<T> {
        let until = Instant::now() + patience;
        let mut waiting = self.lock();
        loop {
            let called = waiting.stop || !waiting.done.is_empty();
            let left = until.saturating_duration_since(Instant::now());
            if called || waiting.rows.len() >= self.enough || left.is_zero() {
                let stop = waiting.stop;
                return std::mem::replace(
                    &mut waiting,
                    Waiting {
                        stop,
                        ..Waiting::default()
                    },
                );
            }
            waiting = match self.call.wait_timeout(waiting, left) {
                Ok((waiting, _)) => waiting,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<T>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    #[test]
    fn a_row_waits_for_the_writer_to_come_by() {
        let queue = Queue::new(3, 10);
        for row in 0..3 {
            queue.put(row).expect("there is room");
        }
        assert_eq!(queue.put(3), Err(3), "there is no more");
        let (done, _heard) = oneshot::channel();
        assert_eq!(
            queue.put_and_wait(vec![4], done).err(),
            Some(vec![4]),
            "nor for those who wait"
        );
        let taken = queue.take(Duration::from_millis(1));
        assert_eq!((taken.rows, taken.stop), (vec![0, 1, 2], false));
        assert!(queue.take(Duration::ZERO).rows.is_empty());
    }

    #[test]
    fn the_writer_is_called_for_enough_rows_for_those_who_wait_and_at_the_end() {
        let queue = Queue::new(100, 2);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| [queue.take(LONG), queue.take(LONG), queue.take(LONG)]);
            let until = |taken: &dyn Fn(&Waiting<i32>) -> bool| {
                while !taken(&queue.lock()) {
                    std::thread::yield_now();
                }
            };
            queue.put(1).expect("there is room");
            queue.put(2).expect("there is room");
            until(&|waiting| waiting.rows.is_empty());
            let (done, _heard) = oneshot::channel();
            queue.put_and_wait((0..200).collect(), done).expect("alone");
            until(&|waiting| waiting.rows.is_empty());
            queue.stop();
            let [enough, asked, end] = writer.join().expect("no panic");
            assert_eq!(enough.rows, [1, 2]);
            assert_eq!((asked.rows.len(), asked.done.len()), (200, 1));
            assert!(end.stop && end.rows.is_empty());
        });
        assert_eq!(queue.put(5), Err(5), "nobody will come");
    }
}
