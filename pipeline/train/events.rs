//! The course of a run as `TensorBoard` reads it: a file of framed `Event` messages, one per figure and record.
//!
//! A frame is the length of the message (8 bytes, little-endian), its masked CRC-32C, the message, its masked CRC-32C; a
//! message is in the encoding of protocol buffers. Memory: a record.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::history::Record;
use crate::fs;

/// The file within a run's folder; `TensorBoard` knows it by the middle of its name.
pub const FILE: &str = "events.out.tfevents.genomill";

/// What the first message must say.
const VERSION: &str = "brain.Event:2";

/// An event file under way.
#[derive(Debug)]
pub(super) struct Events {
    file: File,
    /// When a record of 0 seconds would have been made, in seconds since 1970.
    zero: f64,
    /// Tokens and seconds of the record before.
    before: (u64, f64),
}

impl Events {
    /// Begins the file in `out` again, with the records that there are; `seconds` of training are over.
    pub(super) fn begin(out: &Path, records: &[Record], seconds: f64) -> Result<Self, fs::Error> {
        let path = out.join(FILE);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64());
        let mut events = Self { file: fs::create(&path)?, zero: now - seconds, before: (0, 0.0) };
        let first = message(now, 0, &text(3, VERSION));
        events.file.write_all(&frame(&first)).map_err(fs::error("write", &path))?;
        records.iter().try_for_each(|record| events.add(out, record))?;
        Ok(events)
    }

    /// Appends the figures of a record.
    pub(super) fn add(&mut self, out: &Path, record: &Record) -> Result<(), fs::Error> {
        let (tokens, seconds) = self.before;
        let rate = (record.tokens - tokens.min(record.tokens)) as f64 / (record.seconds - seconds);
        let figures = [
            ("loss/train", Some(record.loss)),
            ("loss/validation", record.validation_loss),
            ("bits_per_base/train", record.bits_per_base),
            ("bits_per_base/validation", record.validation_bits_per_base),
            ("learning_rate", Some(record.learning_rate)),
            ("gradient_norm", Some(record.gradient_norm)),
            ("tokens_per_second", Some(rate).filter(|rate| rate.is_finite())),
        ];
        let time = self.zero + record.seconds;
        let known = figures.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let frames =
            known.flat_map(|(name, value)| frame(&message(time, record.step, &summary(name, value))));
        let frames = frames.collect::<Vec<_>>();
        self.before = (record.tokens, record.seconds);
        self.file.write_all(&frames).map_err(fs::error("write", &out.join(FILE)))
    }
}

/// `Event { wall_time = 1; step = 2; .. }` with one more field.
fn message(time: f64, step: u64, field: &[u8]) -> Vec<u8> {
    let mut message = vec![(1 << 3) | 1];
    message.extend(time.to_le_bytes());
    message.push(2 << 3);
    varint(step, &mut message);
    message.extend(field);
    message
}

/// `summary = 5` with one `value = 1 { tag = 1; simple_value = 2 }`.
fn summary(name: &str, value: f64) -> Vec<u8> {
    let mut figure = text(1, name);
    figure.push((2 << 3) | 5);
    figure.extend(to_f32(value).to_le_bytes());
    bytes(5, &bytes(1, &figure))
}

fn text(field: u8, text: &str) -> Vec<u8> {
    bytes(field, text.as_bytes())
}

fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![(field << 3) | 2];
    varint(content.len() as u64, &mut message);
    message.extend(content);
    message
}

/// Seven bits a byte, the lowest first; all but the last have the upper bit set.
fn varint(mut value: u64, message: &mut Vec<u8>) {
    while value >= 0x80 {
        message.push(0x80 | low_bits(value));
        value >>= 7;
    }
    message.push(low_bits(value));
}

const fn low_bits(value: u64) -> u8 {
    (value & 0x7F) as u8
}

#[expect(clippy::cast_possible_truncation, reason = "figures to look at")]
const fn to_f32(value: f64) -> f32 {
    value as f32
}

fn frame(message: &[u8]) -> Vec<u8> {
    let length = (message.len() as u64).to_le_bytes();
    let sums = [masked(&length).to_le_bytes(), masked(message).to_le_bytes()];
    [&length, &sums[0][..], message, &sums[1]].concat()
}

/// The checksum as the format stores it, so that sums of sums are no sums.
const fn masked(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xA282_EAD8)
}

/// CRC-32C (Castagnoli), bit by bit: records are small and rare.
const fn crc32c(bytes: &[u8]) -> u32 {
    let (mut crc, mut at) = (u32::MAX, 0);
    while at < bytes.len() {
        crc ^= bytes[at] as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 * (crc & 1));
            bit += 1;
        }
        at += 1;
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standard() {
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[0xFF; 32]), 0x62A8_AB43);
        assert_eq!(masked(b"123456789"), 0xE306_9283_u32.rotate_right(15).wrapping_add(0xA282_EAD8));
    }

    #[test]
    fn numbers_take_as_many_bytes_as_they_need() {
        for (value, expected) in [(0, &[0_u8][..]), (127, &[127]), (128, &[0x80, 1]), (300, &[0xAC, 2])] {
            let mut found = Vec::new();
            varint(value, &mut found);
            assert_eq!(found, expected, "{value}");
        }
    }

    /// Splits a file into messages, checking every sum.
    fn messages(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while !bytes.is_empty() {
            let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let end = 12 + usize::try_from(length).unwrap();
            assert_eq!((number(8), number(end)), (masked(&bytes[..8]), masked(&bytes[12..end])));
            found.push(bytes[12..end].to_vec());
            bytes = &bytes[end + 4..];
        }
        found
    }

    #[test]
    fn every_figure_of_every_record_is_a_message() {
        let out = tempfile::tempdir().unwrap();
        let record = |step: u64| Record {
            step,
            tokens: 100 * step,
            seconds: step as f64,
            loss: 2.5,
            bits_per_base: (step > 1).then_some(1.75),
            ..Record::default()
        };
        let mut events = Events::begin(out.path(), &[record(1)], 1.0).unwrap();
        events.add(out.path(), &record(300)).unwrap();
        let messages = messages(&std::fs::read(out.path().join(FILE)).unwrap());
        assert_eq!(messages.len(), 1 + 4 + 5);
        assert!(messages[0].ends_with(VERSION.as_bytes()));
        let contains = |message: &[u8], part: &[u8]| message.windows(part.len()).any(|window| window == part);
        let bits = messages.iter().find(|m| contains(m, b"bits_per_base/train")).unwrap();
        assert!(bits.ends_with(&1.75_f32.to_le_bytes()) && contains(bits, &[2 << 3, 0xAC, 2]));
        let times = [1, 5].map(|at: usize| f64::from_le_bytes(messages[at][1..9].try_into().unwrap()));
        assert!((times[1] - times[0] - 299.0).abs() < 1e-5, "{times:?}");
        let rate = messages.last().unwrap();
        assert!(contains(rate, b"tokens_per_second") && rate.ends_with(&100.0_f32.to_le_bytes()));
    }
}
