//! Throughput of the tokenizers, against Hugging Face's library in the same run; ids are compared before time is.
//!
//! `cargo bench --bench tokenizer -- encode genome.fa.gz tokenizer.json 50` : MB/s of bases, pieces of 1, 10, 100 kb
//! `cargo bench --bench tokenizer -- train genome.fa.gz 4096 1000 50 1`     : vocabulary, bases a piece (0: contigs), MB, threads
//! `cargo bench --bench tokenizer -- load tokenizer.json`                   : ms
//! `cargo bench --bench tokenizer -- windows genome.fa.gz tokenizer.json`   : share of windows that change with the cut
//!
//! The last N megabases of the genome are encoded, the first N are trained on (beyond its end, mutated copies). Set `TOKENIZERS_PARALLELISM=false` to keep
//! the peer on one thread.

#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::io::Read;
use std::time::Instant;

use genomill::observer::Stop;
use genomill::tokenizer::bpe::train::{Config, Trainer};
use genomill::tokenizer::{self, Tokenizer, window};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let texts: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match texts[..] {
        ["encode", genome, path, megabases] => encode(&read(genome)?, path, megabases.parse()?),
        ["train", genome, size, piece, megabases, threads] => {
            train(&read(genome)?, size.parse()?, piece.parse()?, megabases.parse()?, threads.parse()?)
        }
        ["load", path] => load(path),
        ["windows", genome, path] => windows(&read(genome)?, path),
        _ => Err("see the first lines of this file for the arguments".into()),
    }
}

/// Sequence of a FASTA file, gzipped or not, upper-case.
fn read(path: &str) -> Result<Vec<u8>, Failure> {
    let bytes = std::fs::read(path)?;
    let mut text = Vec::new();
    if bytes.starts_with(&[0x1f, 0x8b]) {
        flate2::read::MultiGzDecoder::new(&bytes[..]).read_to_end(&mut text)?;
    } else {
        text = bytes;
    }
    let lines = text.split(|&b| b == b'\n').filter(|line| !line.starts_with(b">"));
    Ok(lines.flatten().map(u8::to_ascii_uppercase).collect())
}

/// Seconds of processor time of this process, all threads.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

/// Peak memory of this process, MB.
fn peak_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).unwrap_or(f64::NAN) / 1e3
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn encode(genome: &[u8], path: &str, megabases: usize) -> Result<(), Failure> {
    let ours = tokenizer::open(path.as_ref())?;
    let peer: tokenizers::Tokenizer = tokenizers::Tokenizer::from_file(path)?;
    let text = &genome[genome.len().saturating_sub(megabases * 1_000_000)..];
    let size = text.len() as f64 / 1e6;
    println!("{} megabases, vocabulary {}", size, ours.vocabulary_size());
    let crate_bpe = dictionary(&*ours);
    println!(
        "| piece | ours, 1 thread | ours, 2 threads | HF encode_batch | ours / HF | crate bpe | ours / bpe | tokens equal |"
    );
    for piece in [1_000, 10_000, 100_000] {
        let pieces: Vec<&[u8]> = text.chunks(piece).collect();
        let mut ids = Vec::new();
        encode_all(&*ours, &pieces, &mut ids)?;
        let [one, two] = [1, 2].map(|threads| encode_on(threads, &*ours, &pieces, ids.len()));
        let ((one, one_cpu), (two, two_cpu)) = (one?, two?);
        let texts: Vec<&str> =
            pieces.iter().map(|piece| std::str::from_utf8(piece)).collect::<Result<_, _>>()?;
        let start = Instant::now();
        let encodings = peer.encode_batch(texts, false)?;
        let theirs = start.elapsed().as_secs_f64();
        let equal = encodings.iter().flat_map(tokenizers::Encoding::get_ids).eq(&ids);
        let start = Instant::now();
        let tokens: Vec<Vec<u32>> =
            pieces.iter().map(|piece| crate_bpe.1.encode_via_backtracking(piece)).collect();
        let backtracking = start.elapsed().as_secs_f64();
        let same = tokens.iter().flatten().map(|token| token + crate_bpe.0).eq(ids.iter().copied());
        let rate = |seconds: f64| size / seconds;
        println!(
            "| {piece} | {:.0} MB/s | {:.0} MB/s, {:.2} x, CPU {:.2} x | {:.2} MB/s | {:.0} x | {:.1} MB/s | {:.1} x | {} HF {}, bpe {} |",
            rate(one),
            rate(two),
            one / two,
            two_cpu / one_cpu,
            rate(theirs),
            theirs / one,
            rate(backtracking),
            backtracking / one,
            ids.len(),
            if equal { "yes" } else { "NO" },
            if same { "yes" } else { "NO" }
        );
    }
    Ok(())
}

/// The tokens that are no special ones, in the order of their ids, as the crate `bpe` takes them, and the first id.
fn dictionary(tokenizer: &dyn Tokenizer) -> (u32, bpe::byte_pair_encoding::BytePairEncoding) {
    let ids: Vec<u32> = (0..tokenizer.vocabulary_size()).filter(|&id| tokenizer.bases(id) > 0).collect();
    let tokens = || ids.iter().filter_map(|&id| tokenizer.text(id).map(|text| text.as_bytes().to_vec()));
    let factor = bpe::byte_pair_encoding::find_hash_factor_for_dictionary(tokens());
    let first = ids.first().copied().unwrap_or_default();
    (first, bpe::byte_pair_encoding::BytePairEncoding::from_dictionary(tokens(), Some(factor)))
}

/// Median seconds by the clock, and of processor time, of encoding everything on some threads.
fn encode_on(
    threads: usize,
    tokenizer: &dyn Tokenizer,
    pieces: &[&[u8]],
    expected: usize,
) -> Result<(f64, f64), Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let (mut clock, mut processor) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        let (start, before) = (Instant::now(), processor_seconds());
        let mut count = 0;
        pool.install(|| {
            tokenizer::parallel::encode(tokenizer, pieces, |part| {
                count += part.ids.len();
                Ok::<(), Failure>(())
            })
        })?;
        clock.push(start.elapsed().as_secs_f64());
        processor.push(processor_seconds() - before);
        if count != expected {
            return Err(format!("{count} tokens on {threads} threads, not {expected}").into());
        }
    }
    Ok((median(clock), median(processor)))
}

/// The ids of all pieces, on the threads of the pool.
fn encode_all(tokenizer: &dyn Tokenizer, pieces: &[&[u8]], ids: &mut Vec<u32>) -> Result<(), Failure> {
    tokenizer::parallel::encode(tokenizer, pieces, |part| {
        ids.extend_from_slice(&part.ids);
        Ok(())
    })
}

/// Prints one line and writes `tokenizer-SIZE-PIECE.json` to the folder for temporary files.
fn train(genome: &[u8], size: u32, piece: usize, megabases: usize, threads: usize) -> Result<(), Failure> {
    let mut trainer = Trainer::new(Config { vocabulary_size: size, ..Config::default() })?;
    // Forgets the peak of reading the text, so that only what is in use now is taken off.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = peak_memory();
    let (wall, processor) = (Instant::now(), processor_seconds());
    let mut wanted = megabases * 1_000_000;
    let mut copy = 0;
    while wanted > 0 {
        let text = &genome[..genome.len().min(wanted)];
        for text in text.chunks(if piece == 0 { text.len() } else { piece }) {
            if copy == 0 { trainer.push(text) } else { trainer.push(&mutate(text, copy)) }
        }
        wanted -= text.len();
        copy += 1;
    }
    let bases = trainer.bases();
    let bpe = trainer.finish(threads, &mut |_, _| {}, &Stop::new())?;
    println!(
        "{bases} bases, vocabulary {size}, pieces of {piece}, {threads} threads: {:.3} CPU s, {:.3} s, {:.0} MB more than the text ({:.2} bytes a base), {} merges, {}",
        processor_seconds() - processor,
        wall.elapsed().as_secs_f64(),
        peak_memory() - before,
        (peak_memory() - before) * 1e6 / bases as f64,
        bpe.merges().count(),
        bpe.fingerprint()
    );
    std::fs::write(std::env::temp_dir().join(format!("tokenizer-{size}-{piece}.json")), bpe.to_json())?;
    Ok(())
}

/// A piece of which one base in twenty is another: what makes a large corpus of a small genome.
fn mutate(piece: &[u8], seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ piece.len() as u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut text = piece.to_vec();
    for _ in 0..piece.len() / 20 {
        let mut below = |limit: usize| usize::try_from(next() % limit as u64).unwrap_or_default();
        text[below(piece.len())] = b"ACGT"[below(4)];
    }
    text
}

fn load(path: &str) -> Result<(), Failure> {
    let mut times = Vec::new();
    for _ in 0..11 {
        let start = Instant::now();
        drop(tokenizer::open(path.as_ref())?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("load {path}: {:.1} ms", median(times));
    Ok(())
}

fn windows(genome: &[u8], path: &str) -> Result<(), Failure> {
    let tokenizer = tokenizer::open(path.as_ref())?;
    let text = &genome[genome.len() / 2..][..2_000_000.min(genome.len() / 2)];
    for flank in [0, 16, 32, 64, 128, 256] {
        let change = window::measure(&*tokenizer, text, 1000, flank);
        println!("flank {flank}: {} of {} windows change when the cuts move", change.changed, change.windows);
    }
    Ok(())
}
