//! Does several tasks at once, with one progress bar.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use super::Progress;

/// A message from a worker thread.
enum Word<R> {
    Progress(u64),
    Done(usize, R),
}

/// Does `work` on each of `tasks`, on at most `jobs` at once; gives the results in the order of the tasks.
///
/// `progress` counts the bytes of all of them.
pub(super) fn parallel<T: Sync, R: Send>(
    jobs: usize,
    tasks: &[T],
    work: impl Fn(&T, Progress<'_>) -> R + Sync,
    progress: Progress<'_>,
) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let (sender, words) = mpsc::channel();
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, tasks.len().max(1)) {
            let (sender, next, work) = (sender.clone(), &next, &work);
            scope.spawn(move || {
                let mut tell = |bytes| drop(sender.send(Word::Progress(bytes)));
                while let Some((at, task)) = take(next, tasks) {
                    let result = work(task, &mut tell);
                    drop(sender.send(Word::Done(at, result)));
                }
            });
        }
        drop(sender);
        let mut results = Vec::with_capacity(tasks.len());
        for word in words {
            match word {
                Word::Progress(bytes) => progress(bytes),
                Word::Done(at, result) => results.push((at, result)),
            }
        }
        results
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

fn take<'t, T>(next: &AtomicUsize, tasks: &'t [T]) -> Option<(usize, &'t T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, tasks.get(at)?))
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_tasks_and_all_progress_is_told() {
        for jobs in [1, 2, 7, 100] {
            let mut seen = 0;
            let tasks: Vec<u64> = (0..20).collect();
            let work = |task: &u64, progress: Progress<'_>| {
                progress(*task);
                progress(1);
                task * 2
            };
            let results = parallel(jobs, &tasks, work, &mut |bytes| seen += bytes);
            assert_eq!(results, (0..20).map(|task| task * 2).collect::<Vec<_>>());
            assert_eq!(seen, 190 + 20);
        }
        assert_eq!(parallel(3, &[], |task: &u64, _: Progress<'_>| *task, &mut |_| {}), [0; 0]);
    }

    /// Each of the two tasks waits until the other has begun.
    #[test]
    fn two_jobs_run_at_once() {
        let both = Barrier::new(2);
        let work = |_: &(), _: Progress<'_>| both.wait().is_leader();
        let leaders = parallel(2, &[(), ()], work, &mut |_| {});
        assert_eq!(leaders.iter().filter(|leads| **leads).count(), 1);
    }
}
