//! Which stages run at a time: each as soon as what it reads is there, in the order of the workflow, while there are
//! threads for it. A stage that fails holds up those that need it, and no others. Memory: the stages.

use std::collections::BTreeSet;

use crate::stage::Share;

/// The stages of a run, and how far each one is.
#[derive(Debug)]
pub struct Schedule {
    stages: Vec<Stage>,
    /// Threads for all stages together.
    threads: usize,
}

#[derive(Debug)]
struct Stage {
    /// The stages that it reads from.
    needs: Vec<usize>,
    share: Share,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    /// On so many threads.
    Running(usize),
    Settled,
    Failed,
}

impl Schedule {
    /// Of stages by what each of them needs, all of it before it in the order, and its share of `threads`.
    pub fn new(stages: impl IntoIterator<Item = (Vec<usize>, Share)>, threads: usize) -> Self {
        let stage = |(needs, share)| Stage { needs, share, state: State::Waiting };
        Self { stages: stages.into_iter().map(stage).collect(), threads: threads.max(1) }
    }

    /// The next stage to start, and on how many threads. The first that could run goes first: none that comes later
    /// takes the threads that it waits for.
    pub fn start(&mut self) -> Option<(usize, usize)> {
        let ready = |stage: &Stage| {
            stage.state == State::Waiting
                && stage.needs.iter().all(|&need| self.stages[need].state == State::Settled)
        };
        let at = self.stages.iter().position(ready)?;
        let free = self.threads - self.running();
        let threads = match self.stages[at].share {
            Share::One => 1,
            Share::Many => free,
        };
        if free < self.least(self.stages[at].share) {
            return None;
        }
        self.stages[at].state = State::Running(threads);
        Some((at, threads))
    }

    /// The threads without which a stage waits: a stage that uses many would be slow for long on the few that are left
    /// beside one that is soon done.
    const fn least(&self, share: Share) -> usize {
        match share {
            Share::One => 1,
            Share::Many => self.threads - self.threads / 4,
        }
    }

    /// Threads of the stages that run.
    fn running(&self) -> usize {
        let threads = |stage: &Stage| match stage.state {
            State::Running(threads) => threads,
            _ => 0,
        };
        self.stages.iter().map(threads).sum()
    }

    /// A stage has ended, well or not.
    pub fn end(&mut self, at: usize, well: bool) {
        self.stages[at].state = if well { State::Settled } else { State::Failed };
    }

    /// The stages that cannot run, since they need one that failed, directly or not.
    pub fn held_up(&self) -> Vec<usize> {
        let mut failed: BTreeSet<usize> =
            (0..self.stages.len()).filter(|&at| self.stages[at].state == State::Failed).collect();
        let mut held_up = Vec::new();
        for (at, stage) in self.stages.iter().enumerate() {
            if stage.needs.iter().any(|need| failed.contains(need)) {
                failed.insert(at);
                held_up.push(at);
            }
        }
        held_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Starts what can start: stages with their threads.
    fn started(schedule: &mut Schedule) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| schedule.start()).collect()
    }

    #[test]
    fn stages_start_in_order_when_inputs_and_threads_are_there() {
        use Share::{Many, One};
        // 0 feeds 1, 2 and 3; 4 needs 1 and 3.
        let stages = [(vec![], One), (vec![0], One), (vec![0], One), (vec![0], Many), (vec![1, 3], One)];
        let mut schedule = Schedule::new(stages.clone(), 2);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, true);
        assert_eq!(started(&mut schedule), [(1, 1), (2, 1)]);
        schedule.end(1, true);
        assert_eq!(started(&mut schedule), [], "one of two threads is too few for 3");
        schedule.end(2, true);
        assert_eq!(started(&mut schedule), [(3, 2)]);
        schedule.end(3, true);
        assert_eq!(started(&mut schedule), [(4, 1)]);
        let mut schedule = Schedule::new(stages, 16);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, true);
        assert_eq!(started(&mut schedule), [(1, 1), (2, 1), (3, 14)]);
    }

    #[test]
    fn a_failure_holds_up_what_needs_it_and_nothing_else() {
        let one = |needs: &[usize]| (needs.to_vec(), Share::One);
        let mut schedule = Schedule::new([one(&[]), one(&[]), one(&[0]), one(&[1]), one(&[2, 3])], 1);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, false);
        assert_eq!(started(&mut schedule), [(1, 1)]);
        schedule.end(1, true);
        assert_eq!(started(&mut schedule), [(3, 1)]);
        schedule.end(3, true);
        assert_eq!(started(&mut schedule), []);
        assert_eq!(schedule.held_up(), [2, 4]);
    }
}
