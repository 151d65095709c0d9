//! Which stages run at a time: each as soon as what it reads is there, in the order of the workflow, while there are
//! threads for it. A stage that fails holds up those that cannot do without it, and no others. Memory: the stages.

use std::collections::BTreeSet;

use crate::stage::Share;

/// What a stage asks for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The stages that it reads from, all of them before it in the order.
    pub needs: Vec<usize>,
    /// Whether it needs all of them; else it waits for all of them, and does with those that did not fail.
    pub all: bool,
    /// How many threads it can use.
    pub share: Share,
    /// How many threads it is to have, if someone said so.
    pub threads: Option<usize>,
    /// Bytes of memory; 0 where no one said so.
    pub memory: u64,
}

/// The stages of a run, and how far each one is.
#[derive(Debug)]
pub struct Schedule {
    stages: Vec<(Ask, State)>,
    /// Threads for all stages together.
    threads: usize,
    /// Bytes of memory for all stages together.
    memory: u64,
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
    /// Of stages that share `threads`, and bytes of `memory` if there is a limit.
    pub fn new(asks: impl IntoIterator<Item = Ask>, threads: usize, memory: Option<u64>) -> Self {
        let stages = asks.into_iter().map(|ask| (ask, State::Waiting)).collect();
        Self { stages, threads: threads.max(1), memory: memory.unwrap_or(u64::MAX) }
    }

    /// The next stage to start, and on how many threads. The first that could run goes first: none that comes later
    /// takes the threads and the memory that it waits for. One that asks for more than there is runs alone.
    pub fn start(&mut self) -> Option<(usize, usize)> {
        let lost = self.lost();
        let settled = |need: &usize| self.stages[*need].1 == State::Settled;
        let ended = |ask: &Ask, need: &usize| settled(need) || (!ask.all && lost.contains(need));
        let ready = |(at, (ask, state)): (usize, &(Ask, State))| {
            *state == State::Waiting && !lost.contains(&at) && ask.needs.iter().all(|need| ended(ask, need))
        };
        let at = self.stages.iter().enumerate().position(ready)?;
        let ask = &self.stages[at].0;
        let running = || {
            self.stages.iter().filter_map(|(ask, state)| match state {
                State::Running(threads) => Some((ask.memory, *threads)),
                _ => None,
            })
        };
        let free = self.threads - running().map(|(_, threads)| threads).sum::<usize>();
        let memory = running().map(|(memory, _)| memory).fold(ask.memory, u64::saturating_add);
        let (least, most) = match (ask.threads, ask.share) {
            (Some(threads), _) => (threads.min(self.threads), threads.min(self.threads)),
            (None, Share::One) => (1, 1),
            (None, Share::Many) => (self.least_of_many(), free),
        };
        if free < least || (memory > self.memory && running().next().is_some()) {
            return None;
        }
        self.stages[at].1 = State::Running(most);
        Some((at, most))
    }

    /// The threads without which a stage that uses many waits: it would be slow for long on the few that are left beside
    /// one that is soon done.
    const fn least_of_many(&self) -> usize {
        self.threads - self.threads / 4
    }

    /// A stage has ended, well or not.
    pub fn end(&mut self, at: usize, well: bool) {
        self.stages[at].1 = if well { State::Settled } else { State::Failed };
    }

    /// The stages that failed and those that cannot run for want of them.
    fn lost(&self) -> BTreeSet<usize> {
        let mut lost = BTreeSet::new();
        if self.stages.iter().all(|(_, state)| *state != State::Failed) {
            return lost;
        }
        for (at, (ask, state)) in self.stages.iter().enumerate() {
            let mut needs = ask.needs.iter().map(|need| lost.contains(need));
            let held_up = if ask.all {
                needs.any(|lost| lost)
            } else {
                !ask.needs.is_empty() && needs.all(|lost| lost)
            };
            if *state == State::Failed || (*state == State::Waiting && held_up) {
                lost.insert(at);
            }
        }
        lost
    }

    /// The stages that cannot run, since they need one that failed, directly or not.
    pub fn held_up(&self) -> Vec<usize> {
        self.lost().into_iter().filter(|&at| self.stages[at].1 != State::Failed).collect()
    }

    /// What a stage reads that is not made in this run, since it failed or was held up.
    pub fn lost_by(&self, at: usize) -> Vec<usize> {
        let lost = self.lost();
        self.stages[at].0.needs.iter().copied().filter(|need| lost.contains(need)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(needs: &[usize], share: Share) -> Ask {
        Ask { needs: needs.to_vec(), all: true, share, threads: None, memory: 0 }
    }

    /// Starts what can start: stages with their threads.
    fn started(schedule: &mut Schedule) -> Vec<(usize, usize)> {
        std::iter::from_fn(|| schedule.start()).collect()
    }

    #[test]
    fn stages_start_in_order_when_inputs_and_threads_are_there() {
        use Share::{Many, One};
        // 0 feeds 1, 2 and 3; 4 needs 1 and 3.
        let asks = [ask(&[], One), ask(&[0], One), ask(&[0], One), ask(&[0], Many), ask(&[1, 3], One)];
        let mut schedule = Schedule::new(asks.clone(), 2, None);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, true);
        assert_eq!(started(&mut schedule), [(1, 1), (2, 1)]);
        schedule.end(1, true);
        assert_eq!(started(&mut schedule), [], "one of two threads is too few for 3");
        schedule.end(2, true);
        assert_eq!(started(&mut schedule), [(3, 2)]);
        schedule.end(3, true);
        assert_eq!(started(&mut schedule), [(4, 1)]);
        let mut schedule = Schedule::new(asks, 16, None);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, true);
        assert_eq!(started(&mut schedule), [(1, 1), (2, 1), (3, 14)]);
    }

    #[test]
    fn threads_and_memory_that_stages_ask_for_are_theirs() {
        let asks = |threads, memory| Ask { threads: Some(threads), memory, ..ask(&[], Share::Many) };
        // Stages by threads and memory, of 4 threads and 10 bytes; what starts at once.
        let cases = [
            (vec![(2, 0), (2, 0), (1, 0)], vec![(0, 2), (1, 2)]),
            (vec![(9, 0), (1, 0)], vec![(0, 4)]),
            (vec![(1, 6), (1, 4), (1, 1)], vec![(0, 1), (1, 1)]),
            (vec![(1, 6), (1, 5), (1, 1)], vec![(0, 1)]),
            (vec![(1, 99), (1, 1)], vec![(0, 1)]),
        ];
        for (stages, expected) in cases {
            let stages = stages.into_iter().map(|(threads, memory)| asks(threads, memory));
            assert_eq!(started(&mut Schedule::new(stages, 4, Some(10))), expected);
        }
    }

    #[test]
    fn a_failure_holds_up_what_needs_it_and_nothing_else() {
        let one = |needs: &[usize]| ask(needs, Share::One);
        let asks = [one(&[]), one(&[]), one(&[0]), one(&[1]), one(&[2, 3])];
        let mut schedule = Schedule::new(asks, 1, None);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, false);
        assert_eq!(started(&mut schedule), [(1, 1)]);
        schedule.end(1, true);
        assert_eq!(started(&mut schedule), [(3, 1)]);
        schedule.end(3, true);
        assert_eq!(started(&mut schedule), []);
        assert_eq!(schedule.held_up(), [2, 4]);
    }

    #[test]
    fn what_can_do_with_less_waits_for_all_and_takes_what_is_left() {
        let one = |needs: &[usize]| ask(needs, Share::One);
        let less = |needs: &[usize]| Ask { all: false, ..one(needs) };
        // 2 and 3 come of 0 and 1; 4 takes what there is of them; 5 of the one that fails alone.
        let asks = [one(&[]), one(&[]), one(&[0]), one(&[1]), less(&[2, 3]), less(&[2])];
        let mut schedule = Schedule::new(asks, 1, None);
        assert_eq!(started(&mut schedule), [(0, 1)]);
        schedule.end(0, false);
        assert_eq!(started(&mut schedule), [(1, 1)]);
        schedule.end(1, true);
        assert_eq!(started(&mut schedule), [(3, 1)], "4 waits for it");
        schedule.end(3, true);
        assert_eq!(started(&mut schedule), [(4, 1)]);
        assert_eq!((schedule.lost_by(4), schedule.lost_by(3)), (vec![2], vec![]));
        schedule.end(4, true);
        assert_eq!(started(&mut schedule), []);
        assert_eq!(schedule.held_up(), [2, 5]);
    }
}
