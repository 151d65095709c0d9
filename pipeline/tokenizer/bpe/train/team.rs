//! Threads that work on parts of the corpus, order after order.
//!
//! An order takes microseconds, less than a thread takes to wake up; so the threads wait awake, and give way when others
//! want the core. The leader works too. Who is free takes the next part: parts differ, and so do cores that others use.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How often a waiting thread looks again before it gives way.
const SPINS: usize = 1 << 10;

/// Parts and what is to be done with each of them.
pub struct Team<'a, Part, Order> {
    parts: &'a [Mutex<Part>],
    work: &'a (dyn Fn(&mut Part, &Order) + Sync),
    order: Mutex<Option<Order>>,
    /// The number of the last order, in the upper half, and of the part that is taken next: in one, so that who comes late
    /// takes no part under an order that is over.
    next: AtomicU64,
    /// Parts that are done under the last order.
    finished: AtomicUsize,
}

/// Runs `lead` beside so many threads less one, but no more than there are parts.
pub fn lead<Part: Send, Order: Copy + Send, Result>(
    parts: &[Mutex<Part>],
    threads: usize,
    work: &(dyn Fn(&mut Part, &Order) + Sync),
    lead: impl FnOnce(&Team<'_, Part, Order>) -> Result,
) -> Result {
    let (order, next, finished) = (Mutex::new(None), AtomicU64::new(0), AtomicUsize::new(0));
    let team = Team { parts, work, order, next, finished };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(parts.len()) {
            scope.spawn(|| team.follow());
        }
        // Sends the threads home, even when the leader panics.
        let _home = Home(&team);
        lead(&team)
    })
}

impl<Part, Order: Copy> Team<'_, Part, Order> {
    /// Carries out an order on every part.
    pub fn carry_out(&self, order: Order) {
        self.finished.store(0, Ordering::Relaxed);
        let number = self.give(Some(order));
        self.work(number, &order);
        wait(|| self.finished.load(Ordering::Acquire) >= self.parts.len());
    }

    /// Carries out an order on one part after the other, without the other threads.
    pub fn carry_out_alone(&self, order: Order) {
        self.parts.iter().for_each(|part| (self.work)(&mut lock(part), &order));
    }

    /// The number of the order.
    fn give(&self, order: Option<Order>) -> u64 {
        *lock(&self.order) = order;
        let number = (self.next.load(Ordering::Relaxed) >> 32) + 1;
        self.next.store(number << 32, Ordering::Release);
        number
    }

    fn follow(&self) {
        let mut done = 0;
        loop {
            let last = || self.next.load(Ordering::Acquire) >> 32;
            wait(|| last() > done);
            // An order that is given meanwhile is found under this number, under which it takes no part.
            done = last();
            let order = *lock(&self.order);
            let Some(order) = order else { return };
            self.work(done, &order);
        }
    }

    /// Works on parts while the order has this number and any is left.
    fn work(&self, number: u64, order: &Order) {
        while let Some(part) = self.take(number) {
            // Counts as done even when the work panics, so that the leader goes on and the panic is seen.
            let _done = Done(&self.finished);
            (self.work)(&mut lock(part), order);
        }
    }

    fn take(&self, number: u64) -> Option<&Mutex<Part>> {
        let following = |next: u64| {
            let left = next >> 32 == number && (next & u64::from(u32::MAX)) < self.parts.len() as u64;
            left.then_some(next + 1)
        };
        let next = self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, following).ok()?;
        self.parts.get(usize::try_from(next & u64::from(u32::MAX)).ok()?)
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
    fn every_part_gets_every_order_in_turn() {
        for (threads, count) in [(1, 1), (2, 2), (2, 9), (5, 3), (3, 0)] {
            let parts: Vec<Mutex<Vec<u32>>> = (0..count).map(|_| Mutex::new(Vec::new())).collect();
            lead(&parts, threads, &|part: &mut Vec<u32>, order| part.push(*order), |team| {
                (0..1000).for_each(|order| team.carry_out(order));
                team.carry_out_alone(1000);
            });
            for part in &parts {
                assert_eq!(*lock(part), (0..=1000).collect::<Vec<u32>>(), "{threads} threads, {count} parts");
            }
        }
    }

    #[test]
    fn a_panic_of_a_thread_reaches_the_leader() {
        let parts = [Mutex::new(0), Mutex::new(1)];
        let work = |part: &mut u32, (): &()| assert!(*part == 0, "part 1");
        let outcome = std::panic::catch_unwind(|| lead(&parts, 2, &work, |team| team.carry_out(())));
        assert!(outcome.is_err());
    }
}
