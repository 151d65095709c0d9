//! Threads that compute independent parts of a batch.
//!
//! Each part is computed by one thread, and the results come back in the order of the parts: what comes out does not
//! depend on the number of threads, to the bit. Small models also run faster so than with threads inside each
//! operation, since nobody waits at the end of every one of them.

use rayon::prelude::*;

use super::weights::Error;

/// A pool of threads.
#[derive(Debug)]
pub struct Workers(rayon::ThreadPool);

impl Workers {
    /// Starts `threads` threads (at least one), and tells torch not to start its own.
    pub fn start(threads: usize) -> Result<Self, Error> {
        tch::set_num_threads(1);
        Ok(Self(rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build()?))
    }

    /// Those that a model on `device` is computed by: `threads`, or one that asks a GPU, which computes by itself.
    pub fn for_device(device: tch::Device, threads: usize) -> Result<Self, Error> {
        Self::start(if device == tch::Device::Cpu { threads } else { 1 })
    }

    /// Number of threads.
    pub fn threads(&self) -> usize {
        self.0.current_num_threads()
    }

    /// `compute` of every part, in the order of the parts; one of the errors if there are any.
    pub fn map<T, R, E>(
        &self,
        parts: Vec<T>,
        compute: impl Fn(T) -> Result<R, E> + Send + Sync,
    ) -> Result<Vec<R>, E>
    where
        T: Send,
        R: Send,
        E: Send,
    {
        self.0.install(|| parts.into_par_iter().map(compute).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_keep_the_order_of_the_parts() {
        for threads in [0, 1, 3] {
            let workers = Workers::start(threads).unwrap();
            let found = workers.map((0..100).collect(), |part: i32| Ok::<_, ()>(part * 2));
            assert_eq!(found, Ok((0..200).step_by(2).collect::<Vec<_>>()), "{threads} threads");
            assert_eq!(workers.map(vec![1, 2], |part| if part == 2 { Err(part) } else { Ok(()) }), Err(2));
        }
    }
}
