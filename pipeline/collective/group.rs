//! The ranks that met, and what they do together.

use std::ffi::{c_char, c_int, c_void};
use std::net::{IpAddr, UdpSocket};
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tch::kind::Element;
use tch::{TchError, Tensor};

use super::Error;
use super::c10d::{
    call, gm_all_reduce, gm_barrier, gm_broadcast, gm_group, gm_group_free, gm_reduce, gm_work_free,
    gm_work_wait, text,
};
use super::place::{Meeting, Place};
use super::store::{Store, milliseconds};
use super::watch::{Patience, Watch};

/// The most time that one operation may take; ranks that are gone are noticed sooner.
const LONGEST: Duration = Duration::from_hours(1);

/// Between two looks at what waits for others.
const LOOK: Duration = Duration::from_millis(50);

/// One wait for an operation; then who is gone is looked at. Tests wait shortly, and so more often.
const SLICE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });

/// How long rank 0 waits for the others to hear its last word.
const FAREWELL: Duration = Duration::from_secs(5);

/// The key of how many ranks are connected.
const CONNECTED: &str = "connected";

/// The key of rank 0's last word.
const END: &str = "end";

/// The ranks that met.
#[derive(Debug)]
pub struct Group {
    place: Place,
    /// c10d's group; its operations are numbered, and so begun one at a time.
    operations: Mutex<Operations>,
    watch: Watch,
    // Last, for what is above uses it.
    store: Store,
}

/// c10d's group, to be freed unless an operation may never end: freeing waits for all of them.
#[derive(Debug)]
struct Operations {
    pointer: NonNull<c_void>,
    broken: bool,
}

// SAFETY: the pointer is c10d's own, which any thread may use; the mutex around it lets one at a time.
unsafe impl Send for Operations {}

/// An operation under way. It has the tensor until it ends, for c10d writes into it.
#[derive(Debug)]
pub struct Work<'a> {
    group: &'a Group,
    pointer: NonNull<c_void>,
    tensor: Tensor,
}

impl Group {
    /// Waits until all ranks are there, and connects with them.
    pub fn join(place: Place) -> Result<Self, Error> {
        let began = Instant::now();
        let store = Store::open(&place).map_err(|why| not_opened(&place, began, why))?;
        meet(&place, &store, began)?;
        let meet = |why| Error::Meet { rank: place.rank, address: place.meeting.to_string(), why };
        let operations = connect(&place, &store).map_err(meet)?;
        let watch = Watch::start(&store, place.rank, place.ranks).map_err(meet)?;
        let group = Self { place, operations: Mutex::new(operations), watch, store };
        group.see_all_connected()?;
        Ok(group)
    }

    /// Waits until all ranks are connected. One that failed at once would close its connections while others still make
    /// theirs, and they would know of no reason.
    fn see_all_connected(&self) -> Result<(), Error> {
        let ranks = i64::from(number(self.ranks()));
        self.store.add(CONNECTED, 1).map_err(|why| self.explain(why))?;
        let all = || Ok((self.store.add(CONNECTED, 0)? >= ranks).then_some(()));
        self.wait_for(all, "not all ranks connect")
    }

    /// This rank.
    pub const fn rank(&self) -> usize {
        self.place.rank
    }

    /// How many there are.
    pub const fn ranks(&self) -> usize {
        self.place.ranks
    }

    /// This rank among those on its machine, from 0; its number among all where nobody told.
    pub fn local(&self) -> usize {
        self.place.local.unwrap_or(self.place.rank)
    }

    /// Whether this is rank 0.
    pub const fn leads(&self) -> bool {
        self.place.rank == 0
    }

    /// Adds up a tensor over all ranks, for all of them.
    pub fn all_reduce(&self, tensor: Tensor) -> Result<Work<'_>, Error> {
        // SAFETY: `begin` hands over pointers that live through the call.
        self.begin(tensor, |group, tensor, why, room| unsafe { gm_all_reduce(group, tensor, why, room) })
    }

    /// Adds up a tensor over all ranks, for `root`; elsewhere it ends with anything.
    pub fn reduce(&self, tensor: Tensor, root: usize) -> Result<Work<'_>, Error> {
        let root = number(root);
        // SAFETY: as above.
        self.begin(tensor, |group, tensor, why, room| unsafe { gm_reduce(group, tensor, root, why, room) })
    }

    /// Gives all ranks what `root` has in its tensor.
    pub fn broadcast(&self, tensor: Tensor, root: usize) -> Result<Work<'_>, Error> {
        let root = number(root);
        // SAFETY: as above.
        self.begin(tensor, |group, tensor, why, room| unsafe { gm_broadcast(group, tensor, root, why, room) })
    }

    /// Waits until all ranks are here.
    pub fn barrier(&self) -> Result<(), Error> {
        // SAFETY: as above.
        let work =
            self.begin(Tensor::new(), |group, _, why, room| unsafe { gm_barrier(group, why, room) })?;
        work.wait().map(drop)
    }

    /// Adds up numbers over all ranks.
    pub fn sum<const N: usize>(&self, numbers: [f64; N]) -> Result<[f64; N], Error> {
        let mut sums = [0.0; N];
        sums.copy_from_slice(&self.added(&numbers)?);
        Ok(sums)
    }

    /// Gives all ranks the bytes that each of them has, in the ranks' order.
    pub fn exchange(&self, own: &[u8]) -> Result<Vec<Vec<u8>>, Error> {
        let mut lengths = vec![0_i64; self.ranks()];
        lengths[self.rank()] = i64::try_from(own.len()).unwrap_or(i64::MAX);
        let lengths = self.added(&lengths)?.into_iter().map(|length| usize::try_from(length).unwrap_or(0));
        let lengths = lengths.collect::<Vec<_>>();
        let before = lengths[..self.rank()].iter().sum::<usize>();
        let mut all = vec![0_u8; lengths.iter().sum()];
        all[before..before + own.len()].copy_from_slice(own);
        let all = self.added(&all)?;
        let mut rest = all.as_slice();
        let of_each = |length| rest.split_off(..length).unwrap_or_default().to_vec();
        Ok(lengths.into_iter().map(of_each).collect())
    }

    /// Adds up values over all ranks, one by one; as many on each.
    fn added<T: Element + Copy + Default>(&self, values: &[T]) -> Result<Vec<T>, Error> {
        let failed = |error: TchError| self.failed(&error.to_string());
        let tensor = self.all_reduce(Tensor::f_from_slice(values).map_err(failed)?)?.wait()?;
        let mut sums = vec![T::default(); values.len()];
        tensor.f_copy_data(&mut sums, values.len()).map_err(failed)?;
        Ok(sums)
    }

    /// Rank 0 tells the others something, once for each key.
    pub fn announce(&self, key: &str, value: &str) -> Result<(), Error> {
        self.store.set(key, value.as_bytes()).map_err(|why| self.explain(why))
    }

    /// Waits for rank 0 to announce one of some keys; the key, and what it says.
    fn hear(&self, keys: &[&'static str]) -> Result<(&'static str, String), Error> {
        let said = |key: &&'static str| self.store.get(key).map(|value| Some((*key, value?))).transpose();
        let any = || keys.iter().find_map(said).transpose();
        let (key, value) = self.wait_for(any, "no word from rank 0")?;
        Ok((key, String::from_utf8_lossy(&value).into_owned()))
    }

    /// Looks at the store until something is there; `why` it ends where others do before.
    fn wait_for<T>(&self, look: impl Fn() -> Result<Option<T>, String>, why: &str) -> Result<T, Error> {
        let mut patience = Patience::new();
        loop {
            if let Some(found) = look().map_err(|why| self.explain(why))? {
                return Ok(found);
            }
            if patience.runs_out(&self.watch) {
                return Err(self.explain(why.to_owned()));
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Tells the others why this rank ends.
    pub fn fail(&self, why: &str) {
        self.watch.tell(why);
    }

    /// Rank 0's last word: whether all went well, or why not. Waits a little for the others to hear it: its store goes with
    /// it.
    pub fn end(&self, failure: Option<&str>) {
        if self.store.set(END, failure.unwrap_or_default().as_bytes()).is_err() {
            return;
        }
        let began = Instant::now();
        let heard = |rank| matches!(self.store.get(&left(rank)), Ok(Some(_)) | Err(_));
        let over = || (1..self.ranks()).all(heard) || self.watch.somebody_ends().unwrap_or(true);
        while began.elapsed() < FAREWELL && !over() {
            std::thread::sleep(LOOK);
        }
    }

    /// Another rank than the first tells that it needs the store no more.
    pub fn leave(&self) {
        drop(self.store.set(&left(self.rank()), b""));
    }

    /// Waits until rank 0 announces `key`: what it says of it; none where it ended without.
    pub fn follow(&self, key: &'static str) -> Result<Option<String>, Error> {
        let (heard, said) = self.hear(&[key, END])?;
        if heard == key { Ok(Some(said)) } else { self.last_word(said).map(|()| None) }
    }

    /// Waits for rank 0's last word.
    pub fn follow_to_the_end(&self) -> Result<(), Error> {
        let (_, said) = self.hear(&[END])?;
        self.last_word(said)
    }

    /// What rank 0's last word means; it was heard.
    fn last_word(&self, why: String) -> Result<(), Error> {
        self.leave();
        let (rank, ranks) = (self.rank(), self.ranks());
        if why.is_empty() { Ok(()) } else { Err(Error::Failed { rank, ranks, failed: 0, why }) }
    }

    fn begin(
        &self,
        mut tensor: Tensor,
        operation: impl FnOnce(*mut c_void, *mut c_void, *mut c_char, usize) -> *mut c_void,
    ) -> Result<Work<'_>, Error> {
        let place: *mut c_void = tensor.as_mut_ptr().cast();
        let begun = {
            let operations = self.operations();
            call(|why, room| operation(operations.pointer.as_ptr(), place, why, room))
        };
        let pointer = begun.and_then(|work| NonNull::new(work).ok_or_else(String::new));
        Ok(Work { group: self, pointer: pointer.map_err(|why| self.explain(why))?, tensor })
    }

    fn operations(&self) -> MutexGuard<'_, Operations> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why an operation failed: who is lost, or has failed itself. Listens for two seconds.
    fn explain(&self, why: String) -> Error {
        self.watch.notice();
        self.operations().broken = true;
        let (rank, ranks) = (self.rank(), self.ranks());
        let serves_elsewhere = !matches!(self.place.meeting, Meeting::Port { rank_0_listens: true, .. });
        match self.watch.listen() {
            Some(findings) => match (findings.failed, findings.lost) {
                (Some((failed, why)), _) => Error::Failed { rank, ranks, failed, why },
                (None, lost) if lost.is_empty() => Error::Operation { rank, ranks, why },
                (None, lost) => Error::Lost { rank, ranks, lost, why },
            },
            // The store goes with the rank that has it.
            None if serves_elsewhere => {
                Error::Operation { rank, ranks, why: format!("{why}; the store is gone") }
            }
            None => Error::Lost { rank, ranks, lost: vec![0], why },
        }
    }

    fn failed(&self, why: &str) -> Error {
        Error::Operation { rank: self.rank(), ranks: self.ranks(), why: why.to_owned() }
    }
}

impl Work<'_> {
    /// The tensor, once the operation has ended.
    pub fn wait(self) -> Result<Tensor, Error> {
        let mut patience = Patience::new();
        loop {
            let slice = milliseconds(SLICE);
            // SAFETY: the work is there until it is dropped.
            let done = call(|why, room| unsafe { gm_work_wait(self.pointer.as_ptr(), slice, why, room) });
            match done {
                Ok(0) if !patience.runs_out(&self.group.watch) => {}
                Ok(0) => return Err(self.group.explain("it does not answer".to_owned())),
                Ok(_) => return Ok(self.tensor.shallow_clone()),
                Err(why) => return Err(self.group.explain(why)),
            }
        }
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        // SAFETY: freed once; c10d keeps what it still works on.
        unsafe { gm_work_free(self.pointer.as_ptr()) };
    }
}

impl Drop for Operations {
    fn drop(&mut self) {
        if !self.broken {
            // SAFETY: freed once, and not used any more.
            unsafe { gm_group_free(self.pointer.as_ptr()) };
        }
    }
}

/// Why a store could not be opened: nearly always that its port is taken, or that nobody listens there.
fn not_opened(place: &Place, began: Instant, why: String) -> Error {
    let (rank, ranks, address) = (place.rank, place.ranks, place.meeting.to_string());
    let lower = why.to_lowercase();
    if lower.contains("eaddrinuse") || lower.contains("address already in use") {
        return Error::PortInUse { address };
    }
    if began.elapsed() < place.patience {
        return Error::Meet { rank, address, why };
    }
    Error::Rendezvous { rank, ranks, address, waited: place.patience, missing: vec![0], why }
}

/// Waits until all ranks have written their names into the store.
fn meet(place: &Place, store: &Store, began: Instant) -> Result<(), Error> {
    let (rank, ranks, address) = (place.rank, place.ranks, || place.meeting.to_string());
    let broken = |why| Error::Meet { rank, address: address(), why };
    store.set(&came(rank), b"").map_err(broken)?;
    let mut missing: Vec<usize> = (0..ranks).collect();
    loop {
        let mut still = Vec::new();
        for rank in missing {
            if store.get(&came(rank)).map_err(broken)?.is_none() {
                still.push(rank);
            }
        }
        if still.is_empty() {
            return Ok(());
        }
        if began.elapsed() > place.patience {
            let (waited, why) = (place.patience, String::new());
            return Err(Error::Rendezvous { rank, ranks, address: address(), waited, missing: still, why });
        }
        missing = still;
        std::thread::sleep(LOOK);
    }
}

fn connect(place: &Place, store: &Store) -> Result<Operations, String> {
    let (rank, ranks) = (number(place.rank), number(place.ranks));
    let interface = text(place.interface.as_deref().unwrap_or_default());
    let address = text(&own_address(&place.meeting).map(|address| address.to_string()).unwrap_or_default());
    let (patience, longest) = (milliseconds(place.patience), milliseconds(LONGEST));
    let (interface, address) = (interface.as_ptr(), address.as_ptr());
    let store = store.pointer();
    let group = call(|why, room| {
        // SAFETY: store and texts live through the call; c10d keeps the store itself alive.
        unsafe { gm_group(store, rank, ranks, interface, address, patience, longest, why, room) }
    })?;
    let pointer = NonNull::new(group).ok_or_else(String::new)?;
    Ok(Operations { pointer, broken: false })
}

/// This machine's address on the way to the meeting. Nothing is sent.
fn own_address(meeting: &Meeting) -> Option<IpAddr> {
    let Meeting::Port { host, port, .. } = meeting else { return None };
    let towards = |any: &str| {
        let socket = UdpSocket::bind(any).ok()?;
        socket.connect((host.as_str(), *port)).ok()?;
        Some(socket.local_addr().ok()?.ip())
    };
    towards("0.0.0.0:0").or_else(|| towards("[::]:0"))
}

fn number(rank: usize) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

fn came(rank: usize) -> String {
    format!("came/{rank}")
}

fn left(rank: usize) -> String {
    format!("left/{rank}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(rank: usize, ranks: usize, file: &std::path::Path) -> Place {
        Place {
            rank,
            ranks,
            here: None,
            local: None,
            meeting: Meeting::File(file.to_owned()),
            interface: None,
            attempt: String::new(),
            patience: Duration::from_secs(20),
        }
    }

    /// Each rank on a thread of its own.
    fn together<T: Send>(ranks: usize, act: impl Fn(Group) -> T + Sync) -> Vec<T> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("store");
        let (file, act) = (&file, &act);
        std::thread::scope(|scope| {
            let start = |rank| scope.spawn(move || act(Group::join(place(rank, ranks, file)).unwrap()));
            let threads: Vec<_> = (0..ranks).map(start).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        Vec::try_from(tensor).unwrap()
    }

    #[test]
    fn tensors_are_added_and_copied() {
        for ranks in [1, 2, 3] {
            let found = together(ranks, |group| {
                let own = || Tensor::from_slice(&[group.rank() as f32 + 1.0, 10.0]);
                let works = [
                    group.all_reduce(own()),
                    group.reduce(own(), ranks - 1),
                    group.broadcast(own(), ranks - 1),
                ];
                let [all, one, copy] = works.map(|work| values(&work.unwrap().wait().unwrap()));
                let sums = group.sum([1.0, group.rank() as f64]).unwrap();
                // Of rank 0 nothing, of others the more the later they are.
                let told = group.exchange("told".repeat(group.rank()).as_bytes()).unwrap();
                group.barrier().unwrap();
                (group.rank(), all, one, copy, sums, told)
            });
            let sum = (ranks * (ranks + 1) / 2) as f32;
            for (rank, all, one, copy, sums, told) in found {
                assert_eq!(all, [sum, 10.0 * ranks as f32], "{ranks} ranks");
                assert!(rank < ranks - 1 || one == all, "rank {rank} of {ranks}: {one:?}");
                assert_eq!(copy, [ranks as f32, 10.0]);
                let of_ranks = f64::from(sum) - ranks as f64;
                assert!(
                    (sums[0] - ranks as f64).abs() < 1e-9 && (sums[1] - of_ranks).abs() < 1e-9,
                    "{sums:?}"
                );
                assert_eq!(told, (0..ranks).map(|rank| "told".repeat(rank).into_bytes()).collect::<Vec<_>>());
            }
        }
    }

    /// To give up a wait takes c10d a while, in which the operation may end.
    #[test]
    fn an_operation_that_ends_as_a_wait_does_has_not_failed() {
        together(2, |group| {
            for tenths in 0..60 {
                if group.leads() {
                    std::thread::sleep(SLICE * 9 / 10 + Duration::from_micros(100 * tenths));
                }
                if let Err(error) = group.barrier() {
                    // The other would wait for an hour.
                    group.fail(&error.to_string());
                    panic!("{error}");
                }
            }
        });
    }

    #[test]
    fn what_rank_0_says_is_heard_and_so_is_why_one_ends() {
        let found = together(2, |group| {
            if group.leads() {
                group.announce("start", "now").unwrap();
                group.end(Some("the disk is full"));
                return String::new();
            }
            assert_eq!(group.follow("start").unwrap().as_deref(), Some("now"));
            group.follow_to_the_end().unwrap_err().to_string()
        });
        assert_eq!(found[1], "rank 0 of 2 failed, and rank 1 stops: the disk is full");
    }

    #[test]
    fn a_rank_that_fails_as_soon_as_it_is_connected_is_heard() {
        for _ in 0..3 {
            let found = together(6, |group| {
                if group.rank() != 1 {
                    return group.barrier().unwrap_err().to_string();
                }
                group.fail("row 3 is wrong");
                String::new()
            });
            for rank in [0, 2, 3, 4, 5] {
                assert_eq!(found[rank], format!("rank 1 of 6 failed, and rank {rank} stops: row 3 is wrong"));
            }
        }
    }

    #[test]
    fn a_rank_that_is_gone_is_named() {
        let found = together(3, |group| {
            group.barrier().unwrap();
            if group.rank() != 1 {
                return group.sum([1.0]).unwrap_err().to_string();
            }
            // Until the others are through with the barrier.
            std::thread::sleep(Duration::from_millis(300));
            String::new()
        });
        for rank in [0, 2] {
            assert!(found[rank].starts_with("lost rank 1 of 3: gone, or cut off ("), "{}", found[rank]);
        }
    }

    #[test]
    fn ranks_that_do_not_come_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let alone =
            Place { patience: Duration::from_millis(300), ..place(1, 3, &folder.path().join("store")) };
        let error = Group::join(alone).unwrap_err().to_string();
        assert!(
            error.starts_with("rank 1 waited 300ms at `") && error.contains("` for ranks 0, 2, in vain"),
            "{error}"
        );
    }
}
