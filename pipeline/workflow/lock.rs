//! The lock of a work folder: one run at a time holds it, or any number of processes that make single stages.

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::io::FdFlags;

use super::Error;
use crate::fs;

/// How often a lock that is held is asked for: one that only looks ([`holder`]) holds it for a moment.
const ATTEMPTS: u32 = 4;

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

fn file(work: &Path) -> PathBuf {
    work.join(".cache").join("lock")
}

/// Takes the work folder for this process; the system lets go of it when the process ends, however it ends. Programs that
/// it starts inherit the lock: while one lives on that a killed run has started, no other run gets in its way.
pub(super) fn lock(work: &Path) -> Result<File, Error> {
    take(work, File::try_lock, &format!("process {}", std::process::id()))
}

/// Shares the work folder with others that make single stages; no run gets it meanwhile.
pub(super) fn share(work: &Path) -> Result<File, Error> {
    take(work, File::try_lock_shared, SHARED)
}

/// What the lock says while the folder is shared.
const SHARED: &str = "processes that make single stages";

fn take(work: &Path, attempt: fn(&File) -> Result<(), TryLockError>, holder: &str) -> Result<File, Error> {
    let path = file(work);
    let open = File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open.map_err(fs::error("open", &path))?;
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match attempt(&file) {
            Ok(()) => {
                rustix::io::fcntl_setfd(&file, FdFlags::empty())
                    .map_err(|code| fs::error("share the lock", &path)(code.into()))?;
                file.set_len(0).map_err(fs::error("write", &path))?;
                file.write_all(holder.as_bytes()).map_err(fs::error("write", &path))?;
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) if left > 0 => std::thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let holder = read(&mut file).map_err(fs::error("read", &path))?;
                return Err(Error::Locked { path: work.to_owned(), holder });
            }
            Err(TryLockError::Error(error)) => return Err(fs::error("lock", &path)(error).into()),
        }
    }
}

/// Takes what belongs to one process at a time, called `name`, in a work folder; waits for another one that has it.
pub fn own(work: &Path, name: &str) -> Result<File, Error> {
    let folder = work.join(".cache").join("locks");
    fs::create_dir_all(&folder)?;
    let path = folder.join(name);
    let open = File::options().write(true).create(true).truncate(false).open(&path);
    let file = open.map_err(fs::error("open", &path))?;
    file.lock().map_err(fs::error("lock", &path))?;
    Ok(file)
}

/// Who holds the work folder for itself, as `process 4242`; none if nobody does.
pub fn holder(work: &Path) -> Result<Option<String>, Error> {
    let path = file(work);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fs::error("open", &path)(error).into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => Ok(Some(read(&mut file).map_err(fs::error("read", &path))?)),
        Err(TryLockError::Error(error)) => Err(fs::error("lock", &path)(error).into()),
    }
}

fn read(file: &mut File) -> std::io::Result<String> {
    let mut holder = String::new();
    file.read_to_string(&mut holder)?;
    Ok(holder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_holder_is_named_while_it_holds() {
        let work = tempfile::tempdir().unwrap();
        assert_eq!(holder(work.path()).unwrap(), None);
        std::fs::create_dir(work.path().join(".cache")).unwrap();
        let held = lock(work.path()).unwrap();
        let us = format!("process {}", std::process::id());
        assert_eq!(holder(work.path()).unwrap(), Some(us.clone()));
        assert!(matches!(lock(work.path()), Err(Error::Locked { holder, .. }) if holder == us));
        assert!(matches!(share(work.path()), Err(Error::Locked { holder, .. }) if holder == us));
        drop(held);
        assert_eq!(holder(work.path()).unwrap(), None);
        let (first, second) = (share(work.path()).unwrap(), share(work.path()).unwrap());
        assert!(matches!(lock(work.path()), Err(Error::Locked { holder, .. }) if holder == SHARED));
        drop((first, second));
        lock(work.path()).unwrap();
    }
}
