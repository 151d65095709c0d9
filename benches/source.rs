//! Reading speed beside peers: `cargo bench --bench source`; with `-- fasta FILE` or `-- bam FILE` one file is read once on one thread, as
//! `benches/source_peers.py` wants it, and its records and bases are printed.
//!
//! Every contender first has to give the same bases. Then all of them run once a round, in turn, so that a busy machine
//! slows them alike; what counts is the median of a round's ratios. Times are of the CPU, over all threads, where the
//! system tells them (Linux), else of the clock; the clock's are shown beside them.
#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::fs::{self, File};
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use genomill::sequence::clean::{Cleaner, Decided, Options};
use genomill::source::{alignment, fasta};
use needletail::Sequence;

const ROUNDS: usize = 11;

type Outcome = Result<Digest, Box<dyn std::error::Error>>;

/// Records, bases, and a sum of the bases where the contender is being checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Digest {
    records: u64,
    bases: u64,
    sum: u32,
}

/// Sees every base of a contender.
struct Sink {
    check: bool,
    crc: libdeflater::Crc,
    digest: Digest,
}

impl Sink {
    fn new(check: bool) -> Self {
        Self { check, crc: libdeflater::Crc::new(), digest: Digest { records: 0, bases: 0, sum: 0 } }
    }

    fn record(&mut self) {
        self.digest.records += 1;
    }

    fn bases(&mut self, bases: &[u8]) {
        self.digest.bases += std::hint::black_box(bases).len() as u64;
        if self.check {
            self.crc.update(bases);
        }
    }

    fn finish(self) -> Digest {
        Digest { sum: self.crc.sum(), ..self.digest }
    }
}

fn ours(path: &Path, check: bool) -> Outcome {
    let (mut reader, mut sink) = (fasta::Reader::open(path)?, Sink::new(check));
    while let Some(event) = reader.next_event()? {
        match event {
            fasta::Event::Record(_) => sink.record(),
            fasta::Event::Bases(bases) => sink.bases(bases),
            fasta::Event::End { .. } => {}
        }
    }
    Ok(sink.finish())
}

/// Reads and cleans; the sum is of the upper-case bases.
fn ours_clean(path: &Path, check: bool) -> Outcome {
    let (mut reader, mut sink) = (fasta::Reader::open(path)?, Sink::new(check));
    let (mut cleaner, mut decided, mut block) =
        (Cleaner::new(Options::default()), Decided::default(), Vec::new());
    while let Some(event) = reader.next_event()? {
        match event {
            fasta::Event::Record(_) => sink.record(),
            fasta::Event::Bases(bases) => {
                block.clear();
                block.extend_from_slice(bases);
                cleaner.push(&mut block, &mut decided);
                sink.bases(&block);
            }
            fasta::Event::End { .. } => {
                cleaner.finish(&mut decided);
            }
        }
    }
    Ok(sink.finish())
}

/// As the file has them, or with every base in upper case, whatever it is.
fn noodles(upper: bool) -> impl Fn(&Path, bool) -> Outcome {
    move |path, check| {
        let file = BufReader::with_capacity(256 << 10, File::open(path)?);
        let mut reader = noodles_fasta::io::Reader::new(file);
        let (mut sink, mut definition, mut bases) =
            (Sink::new(check), noodles_fasta::record::Definition::default(), Vec::new());
        while reader.read_definition(&mut definition)? > 0 {
            reader.read_sequence(&mut bases)?;
            if upper {
                bases.make_ascii_uppercase();
            }
            sink.record();
            sink.bases(&bases);
            bases.clear();
        }
        Ok(sink.finish())
    }
}

fn needletail(path: &Path, check: bool) -> Outcome {
    let (mut reader, mut sink) = (needletail::parse_fastx_file(path)?, Sink::new(check));
    while let Some(record) = reader.next() {
        sink.record();
        sink.bases(&record?.seq());
    }
    Ok(sink.finish())
}

/// As its own `normalize` has them: in upper case, everything but A, C, G and T as N.
fn needletail_normalized(path: &Path, check: bool) -> Outcome {
    let (mut reader, mut sink) = (needletail::parse_fastx_file(path)?, Sink::new(check));
    while let Some(record) = reader.next() {
        sink.record();
        sink.bases(&record?.normalize(false));
    }
    Ok(sink.finish())
}

fn ours_on(threads: usize) -> impl Fn(&Path, bool) -> Outcome {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    move |path, check| match &pool {
        Ok(pool) => pool.install(|| ours(path, check).map_err(|error| error.to_string())).map_err(Into::into),
        Err(error) => Err(error.to_string().into()),
    }
}

fn reads(path: &Path, check: bool) -> Outcome {
    let mut reader = alignment::Reader::open(path, alignment::Options::default())?;
    let mut sink = Sink::new(check);
    while let Some(read) = reader.next_read()? {
        sink.record();
        sink.bases(read.bases);
    }
    Ok(sink.finish())
}

fn reads_on(threads: usize) -> impl Fn(&Path, bool) -> Outcome {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    move |path, check| match &pool {
        Ok(pool) => {
            pool.install(|| reads(path, check).map_err(|error| error.to_string())).map_err(Into::into)
        }
        Err(error) => Err(error.to_string().into()),
    }
}

fn noodles_reads(path: &Path, check: bool) -> Outcome {
    let mut reader = noodles::bam::io::reader::Builder.build_from_path(path)?;
    reader.read_header()?;
    let (mut sink, mut record, mut bases) = (Sink::new(check), noodles::bam::Record::default(), Vec::new());
    while reader.read_record(&mut record)? > 0 {
        bases.clear();
        bases.extend(record.sequence().iter());
        if record.flags().is_reverse_complemented() {
            genomill::sequence::complement::reverse_complement(&mut bases);
        }
        sink.record();
        sink.bases(&bases);
    }
    Ok(sink.finish())
}

type Contender<'a> = (&'a str, &'a dyn Fn(&Path, bool) -> Outcome);

/// Checks that all give the same, then times them; the first is what the others are compared with.
fn compare(
    title: &str,
    path: &Path,
    bytes: u64,
    contenders: &[Contender],
) -> Result<(), Box<dyn std::error::Error>> {
    let expected = contenders[0].1(path, true)?;
    for (name, run) in contenders {
        assert_eq!(run(path, true)?, expected, "{name} differs on {title}");
    }
    let mut times = vec![Vec::new(); contenders.len()];
    for _ in 0..ROUNDS {
        for ((_, run), times) in contenders.iter().zip(&mut times) {
            let (start, cpu) = (Instant::now(), cpu_seconds());
            run(path, false)?;
            let wall = start.elapsed().as_secs_f64();
            times.push((cpu_seconds().zip(cpu).map_or(wall, |(after, before)| after - before), wall));
        }
    }
    println!("\n{title}: {} records, {} bases, {bytes} bytes", expected.records, expected.bases);
    for ((name, _), own) in contenders.iter().zip(&times) {
        let rate = |time: fn(&(f64, f64)) -> f64| bytes as f64 / 1e6 / median(own.iter().map(time));
        let ratio =
            |time: fn(&(f64, f64)) -> f64| median(own.iter().zip(&times[0]).map(|(a, b)| time(a) / time(b)));
        let [cpu, wall] = [rate(|t| t.0), rate(|t| t.1)];
        let [cpu_ratio, wall_ratio] = [ratio(|t| t.0), ratio(|t| t.1)];
        println!(
            "  {name:<18} {cpu:>6.0} MB per CPU s, time x {cpu_ratio:.2}; {wall:>6.0} MB/s by the clock, x {wall_ratio:.2}"
        );
    }
    Ok(())
}

/// Time that the threads of this process have run.
fn cpu_seconds() -> Option<f64> {
    let mut nanoseconds = 0.0;
    for task in fs::read_dir("/proc/self/task").ok()? {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += text.split(' ').next()?.parse::<f64>().ok()?;
    }
    Some(nanoseconds / 1e9)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// About 100 Mbases: the yeast and the E. coli genome six times over, names made distinct, lines of `width` bases.
fn write_genomes(data: &Path, path: &Path, width: usize) -> Result<u64, Box<dyn std::error::Error>> {
    // In pieces as large as what a system reads ahead: how pages lie in memory decides how fast the kernel copies them.
    let mut out = io::BufWriter::with_capacity(4 << 20, File::create(path)?);
    for copy in 0..6 {
        for name in ["yeast_sacCer3.fa.gz", "ecoli_k12_mg1655.fa.gz"] {
            let mut reader = fasta::Reader::open(&data.join(name))?.with_block_bases(width);
            while let Some(event) = reader.next_event()? {
                match event {
                    fasta::Event::Record(header) => {
                        writeln!(out, ">{}_{copy} {}", header.name, header.description)?;
                    }
                    fasta::Event::Bases(bases) => writeln!(out, "{}", str::from_utf8(bases)?)?,
                    fasta::Event::End { .. } => {}
                }
            }
        }
    }
    out.into_inner()?;
    Ok(fs::metadata(path)?.len())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fasta", path] => print_once(ours_on(1)(Path::new(path), false)),
        ["bam", path] => print_once(reads_on(1)(Path::new(path), false)),
        _ => compare_all(),
    }
}

fn print_once(outcome: Outcome) -> Result<(), Box<dyn std::error::Error>> {
    let digest = outcome?;
    println!("{} records, {} bases", digest.records, digest.bases);
    Ok(())
}

fn compare_all() -> Result<(), Box<dyn std::error::Error>> {
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("workflows/data");
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("genomes.fa");
    for width in [60, 150, 1 << 20] {
        let bytes = write_genomes(&data, &path, width)?;
        let contenders: [Contender; 3] =
            [("ours", &ours), ("noodles-fasta", &noodles(false)), ("needletail", &needletail)];
        compare(&format!("FASTA, lines of {width}"), &path, bytes, &contenders)?;
    }
    let bytes = write_genomes(&data, &path, 60)?;
    let contenders: [Contender; 4] = [
        ("ours, cleaned", &ours_clean),
        ("ours, read", &ours),
        ("noodles, upper", &noodles(true)),
        ("needletail, norm.", &needletail_normalized),
    ];
    compare("FASTA to clean bases", &path, bytes, &contenders)?;
    let yeast = data.join("yeast_sacCer3.fa.gz");
    let (one, two) = (ours_on(1), ours_on(2));
    compare(
        "bgzip FASTA (yeast)",
        &yeast,
        12_400_379,
        &[("ours, 1 thread", &one), ("ours, 2 threads", &two)],
    )?;
    let (one, two) = (reads_on(1), reads_on(2));
    let contenders: [Contender; 3] =
        [("ours, 1 thread", &one), ("ours, 2 threads", &two), ("noodles-bam", &noodles_reads)];
    let bam = data.join("yeast_atac_sacCer3.bam");
    compare("BAM to reads (bytes as on disk)", &bam, fs::metadata(&bam)?.len(), &contenders)
}
