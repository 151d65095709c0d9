//! What OLMo-core's datasets read: `SPLIT-00000.npy`, tokens without any header, and `SPLIT-00000.csv.gz`, a line
//! `start,end,id,src,loc` per document: its tokens in the file, `record:start-end:strand`, the source, and its first row in the
//! shard set. A part ends with a document. Memory: buffers.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::document::{self, Document, Sink};
use super::megatron::{Output, create};
use super::{Error, Source, Written};
use crate::fs;

/// Bytes of tokens after which a part ends with the document under way.
const PART_BYTES: u64 = 1 << 30;

pub(super) fn write(source: &Source, folder: &Path) -> Result<Written, Error> {
    let token_bytes = source.token_bytes() as u64;
    let (folder, name) = (folder.to_owned(), source.name.to_owned());
    let mut parts = Parts { folder, name, token_bytes, part_bytes: PART_BYTES, count: 0, part: None };
    let written = document::for_each(source, &mut parts)?;
    parts.finish()?;
    Ok(written)
}

struct Parts {
    folder: PathBuf,
    name: String,
    token_bytes: u64,
    part_bytes: u64,
    count: usize,
    part: Option<Part>,
}

struct Part {
    tokens: Output,
    path: PathBuf,
    documents: GzEncoder<File>,
    /// Tokens of whole documents.
    end: u64,
}

impl Parts {
    fn part(&mut self) -> Result<&mut Part, Error> {
        let part = match self.part.take() {
            Some(part) => part,
            None => self.create()?,
        };
        Ok(self.part.insert(part))
    }

    fn create(&mut self) -> Result<Part, Error> {
        let name = format!("{}-{:05}", self.name, self.count);
        let path = self.folder.join(format!("{name}.csv.gz"));
        let documents = GzEncoder::new(fs::create(&path)?, Compression::default());
        self.count += 1;
        Ok(Part { tokens: create(self.folder.join(format!("{name}.npy")))?, path, documents, end: 0 })
    }

    fn finish(&mut self) -> Result<(), Error> {
        let Some(mut part) = self.part.take() else { return Ok(()) };
        part.tokens.finish()?;
        part.documents.finish().map_err(fs::error("write", &part.path))?;
        Ok(())
    }
}

impl Sink for Parts {
    fn tokens(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.part()?.tokens.write(bytes)
    }

    fn end(&mut self, document: &Document) -> Result<(), Error> {
        let part = self.part()?;
        let begin = part.end;
        part.end += document.tokens;
        let line = line(begin, part.end, document);
        part.documents.write_all(line.as_bytes()).map_err(fs::error("write", &part.path))?;
        let whole = part.end * self.token_bytes >= self.part_bytes;
        if whole { self.finish() } else { Ok(()) }
    }
}

fn line(begin: u64, end: u64, document: &Document) -> String {
    let (id, source) = document.origin.as_ref().map_or_else(Default::default, |origin| {
        let id = format!("{}:{}-{}:{}", origin.record, origin.start, origin.end, origin.strand);
        (id, origin.source.clone())
    });
    format!("{begin},{end},{},{},{}\n", quoted(&id), quoted(&source), document.row)
}

/// A field of CSV, in quotes where it needs them.
fn quoted(text: &str) -> String {
    let plain = !text.contains([',', '"', '\n', '\r']);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::export::document::Origin;
    use crate::units::Strand;

    fn document(record: &str, tokens: u64) -> Document {
        let (record, source) = (record.to_owned(), "s".to_owned());
        let origin = Origin { record, source, start: 3, end: 9, strand: Strand::Reverse };
        Document { tokens, origin: Some(origin), row: 7 }
    }

    #[test]
    fn lines_say_where_and_whence() {
        assert_eq!(line(2, 5, &document("chr1", 3)), "2,5,chr1:3-9:-,s,7\n");
        assert_eq!(line(2, 5, &document("a,\"b\"", 3)), "2,5,\"a,\"\"b\"\":3-9:-\",s,7\n");
        assert_eq!(line(0, 1, &Document { tokens: 1, origin: None, row: 0 }), "0,1,,,0\n");
    }

    #[test]
    fn a_part_ends_with_a_document() {
        let folder = tempfile::tempdir().unwrap();
        let (name, token_bytes) = ("train".to_owned(), 2);
        let folder = folder.path().to_owned();
        let mut parts =
            Parts { folder: folder.clone(), name, token_bytes, part_bytes: 8, count: 0, part: None };
        for tokens in [3_u8, 5, 4, 1] {
            parts.tokens(&vec![tokens; usize::from(tokens) * 2]).unwrap();
            parts.end(&document("chr1", u64::from(tokens))).unwrap();
        }
        parts.finish().unwrap();
        let sizes: Vec<u64> = (0..3)
            .map(|n| std::fs::metadata(folder.join(format!("train-{n:05}.npy"))).unwrap().len())
            .collect();
        assert_eq!(sizes, [16, 8, 2]);
    }
}
