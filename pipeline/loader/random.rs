//! The one source of pseudo-random numbers: a hash of a counter, so that value `i` needs no value before it.

/// Scrambles 64 bits: a bijection whose every output bit depends on every input bit (the finaliser of `SplitMix64`).
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A number of 64 random bits as one from 0 to below 1: its upper 53 bits, which a float holds exactly.
pub const fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}
