//! The tasks of Genomic Benchmarks (repository ML-Bioinfo-CEITEC/genomic_benchmarks, commit 605d853) and of GUE (the paper of DNABERT-2)
//! by name, with the metric that their scores are published in.

use super::Metric;

/// A task that others publish scores of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// As its folder is called; GUE's numbered folders with the name of the folder above.
    pub name: &'static str,
    /// The suite that it belongs to.
    pub suite: &'static str,
    /// Published scores are this.
    pub metric: Metric,
    /// Number of classes.
    pub classes: u32,
    /// Examples of its train and test parts, where they were counted.
    pub examples: Option<[u64; 2]>,
}

const fn genomic_benchmarks(name: &'static str, classes: u32, train: u64, test: u64) -> Known {
    Known {
        name,
        suite: "Genomic Benchmarks",
        metric: Metric::Accuracy,
        classes,
        examples: Some([train, test]),
    }
}

const fn gue(name: &'static str, classes: u32) -> Known {
    Known { name, suite: "GUE", metric: Metric::Mcc, classes, examples: None }
}

/// All of them.
pub const KNOWN: [Known; 37] = [
    genomic_benchmarks("demo_coding_vs_intergenomic_seqs", 2, 75_000, 25_000),
    genomic_benchmarks("demo_human_or_worm", 2, 75_000, 25_000),
    genomic_benchmarks("drosophila_enhancers_stark", 2, 5_184, 1_730),
    genomic_benchmarks("dummy_mouse_enhancers_ensembl", 2, 968, 242),
    genomic_benchmarks("human_enhancers_cohn", 2, 20_843, 6_948),
    genomic_benchmarks("human_enhancers_ensembl", 2, 123_872, 30_970),
    genomic_benchmarks("human_ensembl_regulatory", 3, 231_348, 57_713),
    genomic_benchmarks("human_nontata_promoters", 2, 27_097, 9_034),
    genomic_benchmarks("human_ocr_ensembl", 2, 139_804, 34_952),
    gue("H3", 2),
    gue("H3K14ac", 2),
    gue("H3K36me3", 2),
    gue("H3K4me1", 2),
    gue("H3K4me2", 2),
    gue("H3K4me3", 2),
    gue("H3K79me3", 2),
    gue("H3K9ac", 2),
    gue("H4", 2),
    gue("H4ac", 2),
    gue("prom_300_all", 2),
    gue("prom_300_notata", 2),
    gue("prom_300_tata", 2),
    gue("prom_core_all", 2),
    gue("prom_core_notata", 2),
    gue("prom_core_tata", 2),
    gue("tf-0", 2),
    gue("tf-1", 2),
    gue("tf-2", 2),
    gue("tf-3", 2),
    gue("tf-4", 2),
    gue("mouse-0", 2),
    gue("mouse-1", 2),
    gue("mouse-2", 2),
    gue("mouse-3", 2),
    gue("mouse-4", 2),
    gue("covid", 9),
    gue("reconstructed", 3),
];
