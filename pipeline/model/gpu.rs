//! What a GPU is, and what it is busy with: the memory that tensors have there, and where the time of some steps goes.

use std::ffi::{CString, c_char, c_int};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tch::Device;

use crate::collective::call;

unsafe extern "C" {
    /// Of `gpu.cpp`, like those below.
    fn gm_memory(device: c_int, bytes: *mut i64, why: *mut c_char, room: usize) -> c_int;
    fn gm_gpu_name(device: c_int, name: *mut c_char, length: usize, why: *mut c_char, room: usize) -> c_int;
    fn gm_trace_prepare(gpu: bool, why: *mut c_char, room: usize) -> c_int;
    fn gm_trace_begin(gpu: bool, why: *mut c_char, room: usize) -> c_int;
    fn gm_trace_end(path: *const c_char, why: *mut c_char, room: usize) -> c_int;
}

/// Memory of a GPU, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// What tensors have now.
    pub now: i64,
    /// What they had at most.
    pub peak: i64,
}

/// What this process has of `device`'s memory; none of a processor's.
pub fn memory(device: Device) -> Option<Memory> {
    let Device::Cuda(number) = device else { return None };
    let (number, mut bytes) = (c_int::try_from(number).ok()?, [0; 2]);
    // SAFETY: room for two numbers.
    call(|why, room| unsafe { gm_memory(number, bytes.as_mut_ptr(), why, room) }).ok()?;
    let [now, peak] = bytes;
    Some(Memory { now, peak })
}

/// What a GPU's driver calls it, such as `NVIDIA H100 80GB HBM3`; none of a processor.
pub fn name(device: Device) -> Option<String> {
    let Device::Cuda(number) = device else { return None };
    let (number, mut name) = (c_int::try_from(number).ok()?, [0_u8; 256]);
    // SAFETY: room of the length that is said; the driver ends the name with a zero byte.
    call(|why, room| unsafe { gm_gpu_name(number, name.as_mut_ptr().cast(), name.len(), why, room) }).ok()?;
    let name = name.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

/// Most operations a second in bf16 with f32 sums, of dense matrices, as the makers' data sheets say of GPUs whose names begin so.
const PEAKS: [(&str, f64); 14] = [
    ("NVIDIA B200", 2250e12),
    ("NVIDIA GH200", 989e12),
    ("NVIDIA H200 NVL", 836e12),
    ("NVIDIA H200", 989e12),
    ("NVIDIA H100 PCIe", 756e12),
    ("NVIDIA H100 NVL", 836e12),
    ("NVIDIA H100", 989e12),
    ("NVIDIA A100", 312e12),
    ("NVIDIA A800", 312e12),
    ("NVIDIA A40", 150e12),
    ("NVIDIA A30", 165e12),
    ("NVIDIA A10", 125e12),
    ("NVIDIA L40S", 362e12),
    ("NVIDIA GeForce RTX 4090", 165e12),
];

/// Most operations a second in bf16 of a GPU of that name, where it is known.
pub fn peak(name: &str) -> Option<f64> {
    PEAKS.into_iter().find(|(begin, _)| name.starts_with(begin)).map(|(_, peak)| peak)
}

/// Makes ready for a trace of `device`; once, on the process's first thread, before anything is computed.
///
/// # Errors
/// What torch says.
pub fn prepare_trace(device: Device) -> Result<(), String> {
    let gpu = device != Device::Cpu;
    // SAFETY: a message's room of the length it says.
    call(|why, room| unsafe { gm_trace_prepare(gpu, why, room) }).map(drop)
}

/// Begins to note what all threads ask of torch, and what a GPU does, if it computes on one; after [`prepare_trace`].
///
/// # Errors
/// What torch says.
pub fn begin_trace(device: Device) -> Result<(), String> {
    let gpu = device != Device::Cpu;
    // SAFETY: a message's room of the length it says.
    call(|why, room| unsafe { gm_trace_begin(gpu, why, room) }).map(drop)
}

/// Writes what was noted since then to `path`, in the format that Chrome and Perfetto open. On the same thread.
///
/// # Errors
/// What torch says.
pub fn end_trace(path: &Path) -> Result<(), String> {
    let path = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    // SAFETY: the path ends with a zero byte and lives through the call.
    call(|why, room| unsafe { gm_trace_end(path.as_ptr(), why, room) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gpus_are_known_by_their_names() {
        for (name, expected) in [
            ("NVIDIA H100 80GB HBM3", Some(989e12)),
            ("NVIDIA H100 PCIe", Some(756e12)),
            ("NVIDIA H200", Some(989e12)),
            ("NVIDIA A100-SXM4-40GB", Some(312e12)),
            ("Tesla K80", None),
        ] {
            assert_eq!(peak(name), expected, "{name}");
        }
        assert_eq!((name(Device::Cpu), memory(Device::Cpu)), (None, None));
    }
}
