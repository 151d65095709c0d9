//! Depots: prefixes in buckets where machines put what they made for each other to take.
//!
//! What is kept under a name is `NAME.json`, its seal, and the files `NAME/HASH/...`, where HASH is the blake3 of the seal,
//! which tells size and hash of every file. The seal is put last, and only where there is none (`If-None-Match: *`): what is
//! there never changes, what another process put differently lies in another folder, and without its seal nothing is there.
//! Memory: [`PARALLEL`] pieces of [`PIECE`] bytes, more for files beyond 80 GB.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path as Key;
use object_store::{GetOptions, ObjectStore, PutMode, PutPayload};

use super::ask::{Ask, Deed, Tally};
use super::{Address, Error, Expected, PARALLEL, Remote, Sealed, Settings, Stored, Wanted, Watch, store};
use crate::artifact::FileEntry;
use crate::fs;

/// Files beyond this are put in pieces of it, of which S3 takes at least 5 MiB; tests have small files.
const PIECE: u64 = if cfg!(test) { 1 << 20 } else { 8 << 20 };

/// The most pieces that S3 takes.
const MOST_PIECES: u64 = 10_000;

/// The object by which a store is tried, and what it holds: the layout of what lies beside it.
const MARK: (&str, &str) = ("genomill.json", "{\"schema\": \"genomill/depot/1\"}\n");

/// Statuses of a conditional put that found something: the second is what some stores say.
const THERE: [u16; 2] = [412, 304];

/// A prefix in a bucket.
#[derive(Debug)]
pub struct Depot {
    settings: Settings,
    root: Address,
}

impl Depot {
    /// Asks nobody.
    ///
    /// # Errors
    /// When the address is not in a bucket, or has a pin.
    pub fn new(remote: &Remote, root: Address) -> Result<Self, Error> {
        if root.is_in_bucket() && root.sha256().is_none() {
            return Ok(Self { settings: remote.settings.clone(), root });
        }
        let reason = "a work folder can be in a bucket, expected `s3://bucket/prefix`".to_owned();
        Err(Error::NotKept { address: root.to_string(), reason })
    }

    /// Where something beneath it is.
    pub fn at(&self, name: &str) -> Address {
        self.root.join(name)
    }

    /// Makes sure that things can be put there, and that of two who put the same the second is told.
    pub fn probe(&self, watch: Watch) -> Result<(), Error> {
        let address = self.at(MARK.0);
        let expected = "a store that takes conditional puts (`If-None-Match: *`)";
        let puts = Ask { expected, ..self.ask(&address, Deed::Put, watch) };
        self.with(|client| async move {
            for _ in 0..2 {
                if !create(&client, &puts, MARK.1.as_bytes()).await? {
                    return Ok(());
                }
            }
            let ignored = "it put a second time what was there, so it does not know `If-None-Match: *`";
            Err(puts.failed(format!("{ignored}; expected {expected}")))
        })
    }

    /// The seal of what is kept under a name; none if there is nothing.
    pub fn sealed(&self, name: &str, watch: Watch) -> Result<Option<Sealed>, Error> {
        let address = self.seal(name);
        self.with(|client| async move { sealed(&client, &self.ask(&address, Deed::Fetch, watch)).await })
    }

    /// The last parts of all names in a folder under which something is kept, in order.
    pub fn names(&self, folder: &str, watch: Watch) -> Result<Vec<String>, Error> {
        let address = self.at(folder);
        self.with(|client| async move {
            let ask = Ask { expected: "a list", ..self.ask(&address, Deed::Fetch, watch) };
            let (client, key) = (&client, &store::location(&address)?);
            let list = ask.patiently(&[], || client.list_with_delimiter(Some(key))).await?;
            let list = list.map_err(|status| ask.failed(format!("HTTP {status}")))?;
            let names = list.objects.iter().filter_map(|object| object.location.filename());
            Ok(names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect())
        })
    }

    /// Keeps the files of a folder under a name, and its seal; what is there already stays.
    pub fn store(
        &self,
        name: &str,
        (folder, files): (&Path, &[FileEntry]),
        seal: &[u8],
        watch: Watch,
    ) -> Result<Stored, Error> {
        let address = self.seal(name);
        self.with(|client| async move {
            if let Some(there) = sealed(&client, &self.ask(&address, Deed::Fetch, watch)).await? {
                return Ok(Stored::There(there));
            }
            self.put_files(&client, &self.folder(name, seal), folder, files, watch).await?;
            let puts = Ask { expected: "to put it", ..self.ask(&address, Deed::Put, watch) };
            if create(&client, &puts, seal).await? {
                return Ok(Stored::Now);
            }
            let there = sealed(&client, &self.ask(&address, Deed::Fetch, watch)).await?;
            there.map(Stored::There).ok_or_else(|| puts.failed("it was there, and is gone".to_owned()))
        })
    }

    /// Brings files of what is kept under a name into folders, each checked; what is there with its size is left alone.
    pub fn bring<'a>(
        &self,
        wanted: impl IntoIterator<Item = (&'a str, &'a [u8], &'a FileEntry, &'a Path)>,
        watch: Watch,
    ) -> Result<(), Error> {
        let wanted = wanted.into_iter().map(|(name, seal, entry, to)| {
            let address = self.folder(name, seal).join(&entry.path);
            if !super::lies_beneath(&entry.path) {
                let reason = "its path leads out of its folder".to_owned();
                return Err(Error::Failed { address: address.to_string(), reason });
            }
            let expected = Expected::Blake3(entry.bytes, entry.blake3.clone());
            Ok(Wanted { address, to: Some(to.join(&entry.path)), expected })
        });
        let wanted = wanted.collect::<Result<Vec<_>, Error>>()?;
        Remote::new(self.settings.clone()).fetch(&wanted, watch)
    }

    fn seal(&self, name: &str) -> Address {
        self.at(&format!("{name}.json"))
    }

    fn folder(&self, name: &str, seal: &[u8]) -> Address {
        self.at(&format!("{name}/{}", &blake3::hash(seal).to_hex()[..32]))
    }

    fn ask<'a>(&'a self, address: &'a Address, deed: Deed, watch: Watch<'a>) -> Ask<'a> {
        let expected =
            "the object, or 404 where there is none, for which a policy has to allow s3:ListBucket";
        Ask { settings: &self.settings, address, watch, deed, expected }
    }

    fn with<T, F: Future<Output = Result<T, Error>>>(
        &self,
        work: impl FnOnce(AmazonS3) -> F,
    ) -> Result<T, Error> {
        let client = store::bucket(&self.settings, &self.root)?;
        store::block_on(&self.root.to_string(), work(client))
    }

    /// Puts what is not there with its size; names tell content.
    async fn put_files(
        &self,
        client: &AmazonS3,
        to: &Address,
        folder: &Path,
        files: &[FileEntry],
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let ask = Ask { expected: "a list", ..self.ask(to, Deed::Fetch, watch) };
        let prefix = &store::location(to)?;
        let list = ask.patiently(&[], || client.list(Some(prefix)).try_collect::<Vec<_>>()).await?;
        let list = list.map_err(|status| ask.failed(format!("HTTP {status}")))?;
        let there: HashMap<Key, u64> =
            list.into_iter().map(|object| (object.location, object.size)).collect();
        let mut puts = Vec::new();
        for entry in files {
            let address = to.join(&entry.path);
            let key = store::location(&address)?;
            if there.get(&key) != Some(&entry.bytes) {
                puts.push((address, key, entry));
            }
        }
        let tally = &Tally::new(puts.iter().map(|(.., entry)| entry.bytes).sum(), watch);
        let running = puts.iter().map(|(address, key, entry)| async move {
            let ask = Ask { expected: "to put it", ..self.ask(address, Deed::Put, watch) };
            put_file(client, &ask, key, &folder.join(&entry.path), entry.bytes, tally).await
        });
        futures_util::stream::iter(running).buffer_unordered(PARALLEL).try_collect().await
    }
}

/// Puts an object where there is none; tells whether there was none.
async fn create(client: &AmazonS3, ask: &Ask<'_>, bytes: &[u8]) -> Result<bool, Error> {
    let (key, payload) = (&store::location(ask.address)?, &PutPayload::from(bytes.to_vec()));
    let put = || client.put_opts(key, payload.clone(), PutMode::Create.into());
    Ok(ask.patiently(&THERE, put).await?.is_ok())
}

async fn sealed(client: &AmazonS3, ask: &Ask<'_>) -> Result<Option<Sealed>, Error> {
    let key = &store::location(ask.address)?;
    let get = || async move {
        let answer = client.get_opts(key, GetOptions::default()).await?;
        let put = answer.meta.last_modified.timestamp_millis();
        Ok((u64::try_from(put).unwrap_or(0), answer.bytes().await?))
    };
    let answer = ask.patiently(&[404], get).await?;
    Ok(answer.ok().map(|(put, bytes)| Sealed {
        bytes: bytes.to_vec(),
        put: SystemTime::UNIX_EPOCH + Duration::from_millis(put),
    }))
}

async fn put_file(
    client: &AmazonS3,
    ask: &Ask<'_>,
    key: &Key,
    path: &Path,
    bytes: u64,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    if bytes > PIECE {
        let refused = |status: u16| ask.failed(format!("HTTP {status}"));
        let id = &ask.patiently(&[], || client.create_multipart(key)).await?.map_err(refused)?;
        let put = put_pieces(client, ask, (key, id), path, bytes, tally).await;
        if put.is_err() {
            // What is left of it costs money; who cannot take it away now says why it failed, not this.
            drop(client.abort_multipart(key, id).await);
        }
        return put;
    }
    let mut file = fs::open(path)?;
    let payload = &read(&mut file, path, bytes)?;
    drop(ask.patiently(&[], || client.put_opts(key, payload.clone(), PutMode::Overwrite.into())).await?);
    tally.add(bytes);
    Ok(())
}

async fn put_pieces(
    client: &AmazonS3,
    ask: &Ask<'_>,
    (key, id): (&Key, &String),
    path: &Path,
    bytes: u64,
    tally: &Tally<'_>,
) -> Result<(), Error> {
    let refused = |status: u16| ask.failed(format!("HTTP {status}"));
    let (piece, mut file, mut parts) = (PIECE.max(bytes.div_ceil(MOST_PIECES)), fs::open(path)?, Vec::new());
    let mut left = bytes;
    while left > 0 {
        let size = piece.min(left);
        let (at, payload) = (parts.len(), &read(&mut file, path, size)?);
        let part: PartId =
            ask.patiently(&[], || client.put_part(key, id, at, payload.clone())).await?.map_err(refused)?;
        parts.push(part);
        tally.add(size);
        left -= size;
    }
    let parts = &parts;
    let done = ask.patiently(&[], || client.complete_multipart(key, id, parts.clone())).await?;
    done.map(drop).map_err(refused)
}

/// The next bytes of a file, which must have as many.
fn read(file: &mut std::fs::File, path: &Path, bytes: u64) -> Result<PutPayload, Error> {
    let mut buffer = Vec::new();
    file.take(bytes).read_to_end(&mut buffer).map_err(fs::error("read", path))?;
    if buffer.len() as u64 == bytes {
        return Ok(PutPayload::from(buffer));
    }
    let short = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    Err(fs::error("read", path)(short).into())
}
