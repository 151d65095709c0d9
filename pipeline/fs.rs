//! File calls whose errors name the path and the action.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::{NamedTempFile, TempDir};

/// A file call that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`: {}", path.display(), plain(source))]
pub struct Error {
    /// What was tried, as a verb: "open", "create".
    pub action: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

/// The system's words without their first capital and without the error number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

/// Attaches the action and the path to an I/O error: `file.read(..).map_err(fs::error("read", path))`.
pub fn error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error { action, path, source }
}

/// Opens a file for reading.
pub fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(error("open", path))
}

/// Creates (or truncates) a file for writing.
pub fn create(path: &Path) -> Result<File, Error> {
    File::create(path).map_err(error("create", path))
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(error("read", path))
}

/// Reads a whole file as UTF-8.
pub fn read_to_string(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(error("read", path))
}

/// Creates a folder and its parents.
pub fn create_dir_all(path: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(path).map_err(error("create folder", path))
}

/// The room of a disk.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes in all.
    pub all: u64,
}

/// The room of the disk that a folder lies on.
pub fn room(folder: &Path) -> Result<Room, Error> {
    let found = rustix::fs::statvfs(folder).map_err(|code| error("read the disk of", folder)(code.into()))?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Room { free: bytes(found.f_bavail), all: bytes(found.f_blocks) })
}

/// Writes what was serialised, as [`write_atomic`] does.
pub fn write_json(path: &Path, json: serde_json::Result<Vec<u8>>) -> Result<(), Error> {
    write_atomic(path, &json.map_err(io::Error::other).map_err(error("write", path))?)
}

/// What the names of files begin with that [`write_atomic`] has not renamed yet: of those of a run that was killed, nobody will.
pub const TEMPORARY: &str = ".writing-";

/// The folder in which a file lies, or will.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// An empty file in `folder` to be renamed once it is whole. As any other file, it is for whom the umask says.
pub fn temporary_file(folder: &Path) -> Result<NamedTempFile, Error> {
    let open = PermissionsExt::from_mode(0o666);
    let made = tempfile::Builder::new().prefix(TEMPORARY).permissions(open).tempfile_in(folder);
    made.map_err(error("create a file in", folder))
}

/// An empty folder in `parent`, likewise, whose name begins with `prefix`.
pub fn temporary_folder(parent: &Path, prefix: &str) -> Result<TempDir, Error> {
    let open = PermissionsExt::from_mode(0o777);
    let made = tempfile::Builder::new().prefix(prefix).permissions(open).tempdir_in(parent);
    made.map_err(error("create a folder in", parent))
}

/// Writes a small file whole or not at all: a temporary file beside it, synced, then renamed.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let mut part = temporary_file(folder_of(path))?;
    part.write_all(bytes).map_err(error("write", path))?;
    part.as_file().sync_all().map_err(error("sync", path))?;
    part.persist(path).map_err(|e| Error { action: "rename to", path: path.to_owned(), source: e.error })?;
    Ok(())
}

/// Makes the folder `path`, and its parents, whole or not at all: `write` fills another folder beside it, which is then
/// renamed.
pub fn write_folder<E: From<Error>>(
    path: &Path,
    write: impl FnOnce(&Path) -> Result<(), E>,
) -> Result<(), E> {
    let parent = folder_of(path);
    create_dir_all(parent)?;
    let part = temporary_folder(parent, ".part-")?;
    write(part.path())?;
    std::fs::rename(part.path(), path).map_err(error("rename to", path))?;
    drop(part.keep());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_action_path_and_reason() {
        let error = open(Path::new("no/such/file")).unwrap_err();
        assert_eq!(error.to_string(), "cannot open `no/such/file`: no such file or directory");
    }

    #[test]
    fn what_is_renamed_is_for_whom_other_files_are() {
        let folder = tempfile::tempdir().unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        let [file, inner] = ["file", "folder"].map(|name| folder.path().join(name));
        std::fs::write(&file, "").unwrap();
        std::fs::create_dir(&inner).unwrap();
        assert_eq!(mode(temporary_file(folder.path()).unwrap().path()), mode(&file));
        assert_eq!(mode(temporary_folder(folder.path(), "part-").unwrap().path()), mode(&inner));
        let made = folder.path().join("made");
        write_folder(&made, |_| Ok::<_, Error>(())).unwrap();
        assert_eq!(mode(&made), mode(&inner));
    }
}
