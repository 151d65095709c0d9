//! The format is frozen: what the writer makes is, byte for byte, what lies in `tests/golden/shard`.
//!
//! `GENOMILL_WRITE_GOLDEN=1 cargo test shard::golden` writes the files anew, which is a new version of the schema.

use std::path::{Path, PathBuf};

use super::fixture::{PLAIN, publish, rows};
use super::verify::verify;
use super::{Layout, ShardSet, Tokens};
use crate::artifact::Artifact;

/// Every folder with its layout.
const FOLDERS: [(&str, Layout); 4] = [
    ("mapped_u16", PLAIN),
    ("mapped_u32", Layout { token_bytes: 4, ..PLAIN }),
    ("mapped_weights", Layout { weights: true, ..PLAIN }),
    ("archive", Layout { weights: true, archive: true, ..PLAIN }),
];

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/shard").join(name)
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_writer_makes_the_golden_bytes() {
    for (name, layout) in FOLDERS {
        let work = tempfile::tempdir().unwrap();
        // Two files: 30 rows and 10.
        let made = publish(work.path(), layout, rows(layout, 40), 30 * layout.row_bytes() as u64).folder;
        let kept = kept(name);
        if std::env::var_os("GENOMILL_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&kept).unwrap();
            for file in files(&made) {
                std::fs::copy(made.join(&file), kept.join(file)).unwrap();
            }
        }
        assert_eq!(files(&made), files(&kept), "{name}");
        for file in files(&kept) {
            let (made, kept) = (made.join(&file), kept.join(&file));
            assert!(std::fs::read(made).unwrap() == std::fs::read(&kept).unwrap(), "{}", kept.display());
        }
    }
}

#[test]
fn the_golden_folders_are_read() {
    for (name, layout) in FOLDERS {
        let artifact = Artifact::open(&kept(name)).unwrap();
        let checked = verify(&artifact).unwrap();
        assert_eq!((checked.files, checked.rows, checked.bases), (3, 40, 2400), "{name}");
        let set = ShardSet::from_artifact(&artifact).unwrap();
        let found = set.rows("train").unwrap();
        for (number, row) in (0..).zip(rows(layout, 40)) {
            assert_eq!(found.get(number).to_vec(), row.tokens, "{name}, row {number}");
            assert_eq!(found.weights(number).unwrap_or_default(), row.weights, "{name}, row {number}");
            assert_eq!(set.provenance("train", number).unwrap(), row.segments, "{name}, row {number}");
            assert_eq!(set.documents("train", number).unwrap(), row.documents, "{name}, row {number}");
        }
        assert_eq!(matches!(found.get(0), Tokens::U32(_)), layout.token_bytes == 4, "{name}");
        assert!(set.provenance("train", 40).unwrap_err().to_string().ends_with("has no row 40, it has 40"));
    }
}
