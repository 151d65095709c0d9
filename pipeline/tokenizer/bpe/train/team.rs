//! Threads that each work on a part of the corpus, order after order.
//!
//! An order takes microseconds, less than a thread takes to wake up; so the threads wait awake, and give way when others
//! want the core. The leader works on the first part itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a waiting thread looks again before it gives way.
const SPINS: usize = 1 << 10;

/// Parts and what is to be done with each of them.
pub struct Team<'a, Part, Order> {
    parts: &'a [Mutex<Part>],
    work: &'a (dyn Fn(&mut Part, &Order) + Sync),
    order: Mutex<Option<Order>>,
    /// Orders given so far.
    given: AtomicUsize,
    /// Threads that have finished the last order.
    finished: AtomicUsize,
}

/// Runs `lead` beside one thread for every part but the first.
pub fn lead<Part: Send, Order: Copy + Send, Result>(
    parts: &[Mutex<Part>],
    work: &(dyn Fn(&mut Part, &Order) + Sync),
    lead: impl FnOnce(&Team<'_, Part, Order>) -> Result,
) -> Result {
    let (order, given, finished) = (Mutex::new(None), AtomicUsize::new(0), AtomicUsize::new(0));
    let team = Team { parts, work, order, given, finished };
    std::thread::scope(|scope| {
        for part in parts.iter().skip(1) {
            scope.spawn(|| team.follow(part));
        }
        // Sends the threads home, even when the leader panics.
        let _home = Home(&team);
        lead(&team)
    })
}

impl<Part, Order: Copy> Team<'_, Part, Order> {
    /// Carries out an order on every part at once.
    pub fn carry_out(&self, order: Order) {
        self.finished.store(0, Ordering::Relaxed);
        self.give(Some(order));
        if let Some(first) = self.parts.first() {
            (self.work)(&mut lock(first), &order);
        }
        wait(|| self.finished.load(Ordering::Acquire) + 1 >= self.parts.len());
    }

    /// Carries out an order on one part after the other; `before` sees each part's number first.
    pub fn carry_out_in_turn(&self, order: Order, mut before: impl FnMut(usize)) {
        for (number, part) in self.parts.iter().enumerate() {
            before(number);
            (self.work)(&mut lock(part), &order);
        }
    }

    fn give(&self, order: Option<Order>) {
        *lock(&self.order) = order;
        self.given.fetch_add(1, Ordering::Release);
    }

    fn follow(&self, part: &Mutex<Part>) {
        for orders in 1.. {
            wait(|| self.given.load(Ordering::Acquire) >= orders);
            let order = *lock(&self.order);
            let Some(order) = order else { return };
            // Counts as finished even when the work panics, so that the leader goes on and the panic is seen.
            let _done = Done(&self.finished);
            (self.work)(&mut lock(part), &order);
        }
    }
}

struct Home<'a, 'b, Part, Order: Copy>(&'a Team<'b, Part, Order>);

impl<Part, Order: Copy> Drop for Home<'_, '_, Part, Order> {
    fn drop(&mut self) {
        self.0.give(None);
    }
}

struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

/// The content of a mutex; after a panic elsewhere too, since that ends the whole.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn wait(mut until: impl FnMut() -> bool) {
    let mut spins = 0;
    while !until() {
        if spins < SPINS {
            spins += 1;
            std::hint::spin_loop();
        } else {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_gets_every_order() {
        for threads in [1, 2, 5] {
            let parts: Vec<Mutex<Vec<u32>>> = (0..threads).map(|_| Mutex::new(Vec::new())).collect();
            lead(&parts, &|part: &mut Vec<u32>, order| part.push(*order), |team| {
                (0..100).for_each(|order| team.carry_out(order));
                team.carry_out_in_turn(100, |_| {});
            });
            for part in &parts {
                assert_eq!(*lock(part), (0..=100).collect::<Vec<u32>>(), "{threads} threads");
            }
        }
    }

    #[test]
    fn a_panic_of_a_thread_reaches_the_leader() {
        let parts = [Mutex::new(0), Mutex::new(1)];
        let work = |part: &mut u32, (): &()| assert!(*part == 0, "part 1");
        let outcome = std::panic::catch_unwind(|| lead(&parts, &work, |team| team.carry_out(())));
        assert!(outcome.is_err());
    }
}
