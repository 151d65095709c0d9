//! Where models are computed: by the processor, or by a GPU through CUDA. One choice for the whole process, as torch's
//! threads are; what an artifact is made from does not change with it.

use std::fmt;
use std::str::FromStr;
#[cfg(feature = "train")]
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(feature = "train")]
use tch::{Device, TchError, Tensor};

/// What the user chose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Choice {
    /// The first GPU where CUDA finds one, else the processor.
    #[default]
    Auto,
    /// The processor.
    Cpu,
    /// A GPU: the first, or of several processes on a machine one for each.
    Gpu,
    /// The GPU of this number.
    Cuda(usize),
}

/// 0: auto, 1: the processor, 2: a GPU, 3 and more: one of them.
static CHOSEN: AtomicUsize = AtomicUsize::new(0);

/// Chooses for the whole process: for what is opened from then on.
pub fn choose(choice: Choice) {
    let number = match choice {
        Choice::Auto => 0,
        Choice::Cpu => 1,
        Choice::Gpu => 2,
        Choice::Cuda(number) => number.saturating_add(3),
    };
    CHOSEN.store(number, Ordering::Relaxed);
}

/// What was chosen, [`Choice::Auto`] if nothing was.
pub fn chosen() -> Choice {
    match CHOSEN.load(Ordering::Relaxed) {
        0 => Choice::Auto,
        1 => Choice::Cpu,
        2 => Choice::Gpu,
        number => Choice::Cuda(number - 3),
    }
}

impl FromStr for Choice {
    type Err = String;

    /// Reads `auto`, `cpu`, `cuda` and `cuda:1`.
    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Gpu),
            _ => number(text)
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected `auto`, `cpu`, `cuda` or `cuda:1`, found `{text}`")),
        }
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => write!(f, "auto"),
            Self::Cpu => write!(f, "cpu"),
            Self::Gpu => write!(f, "cuda"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// A GPU that was asked for and is not there.
#[derive(Debug, thiserror::Error)]
#[error("found no GPU `cuda:{number}`: {why}; `--device cpu` computes on the processor")]
pub struct Error {
    number: usize,
    why: String,
}

/// The device of what was chosen.
///
/// # Errors
/// When it is a GPU that CUDA does not find.
#[cfg(feature = "train")]
pub fn open() -> Result<Device, Error> {
    let number = match chosen() {
        Choice::Cpu => return Ok(Device::Cpu),
        Choice::Auto => return Ok(if cuda().is_ok() { Device::Cuda(0) } else { Device::Cpu }),
        Choice::Gpu => 0,
        Choice::Cuda(number) => number,
    };
    match cuda() {
        Ok(count) if number < *count => Ok(Device::Cuda(number)),
        Ok(count) => Err(Error { number, why: format!("CUDA finds {count}, numbered from 0") }),
        Err(why) => Err(Error { number, why: why.clone() }),
    }
}

/// The device of one of several processes on this machine, by its number among them: with `auto` and `cuda`, each takes a GPU of its
/// own, in turn.
///
/// # Errors
/// Those of [`open`].
#[cfg(feature = "train")]
pub fn open_among(local: usize) -> Result<Device, Error> {
    match (chosen(), cuda()) {
        (Choice::Auto | Choice::Gpu, Ok(count)) => Ok(Device::Cuda(local % *count)),
        _ => open(),
    }
}

/// The GPU that was chosen, such as `cuda:0 (NVIDIA H100 80GB HBM3)`; none if it is the processor.
///
/// # Errors
/// Those of [`open`].
#[cfg(feature = "train")]
pub fn gpu() -> Result<Option<String>, Error> {
    Ok(described(open()?))
}

/// A GPU by its number and name, as above; none of a processor.
#[cfg(feature = "train")]
pub fn described(device: Device) -> Option<String> {
    let Device::Cuda(number) = device else { return None };
    let name = super::gpu::name(device).map_or_else(String::new, |name| format!(" ({name})"));
    Some(format!("{}{name}", Choice::Cuda(number)))
}

/// How many GPUs there are, at least one; or why there is none.
#[cfg(feature = "train")]
pub fn cuda() -> &'static Result<usize, String> {
    static FOUND: OnceLock<Result<usize, String>> = OnceLock::new();
    FOUND.get_or_init(|| {
        // Before anything is asked of CUDA: torch looks for this library once.
        library::load()?;
        let count = if tch::Cuda::is_available() { tch::Cuda::device_count() } else { 0 };
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err("CUDA finds no GPU here, or its driver is too old".to_owned()),
        }
    })
}

/// A tensor of the processor on `device`. A GPU gets it through pinned memory, so that nobody waits for the copy.
#[cfg(feature = "train")]
pub fn sent(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    if device == Device::Cpu {
        return Ok(tensor.shallow_clone());
    }
    tensor.f_internal_pin_memory(device)?.f_internal_to_copy((tensor.f_kind()?, device), true)
}

/// The part of libtorch that knows CUDA, which the program is not linked with.
#[cfg(feature = "train")]
mod library {
    use std::ffi::{CStr, c_char, c_int, c_void};

    const NAME: &CStr = c"libtorch_cuda.so";
    #[cfg(target_os = "linux")]
    const NOW_FOR_ALL: c_int = 0x2 | 0x100;
    #[cfg(not(target_os = "linux"))]
    const NOW_FOR_ALL: c_int = 0x2 | 0x8;

    unsafe extern "C" {
        fn dlopen(name: *const c_char, flags: c_int) -> *mut c_void;
        fn dlerror() -> *const c_char;
    }

    /// Loads it, from beside libtorch or from `LD_LIBRARY_PATH`; why not, if it cannot.
    pub(super) fn load() -> Result<(), String> {
        // SAFETY: the name ends with a zero byte; the library is torch's own, made to be loaded so.
        if !unsafe { dlopen(NAME.as_ptr(), NOW_FOR_ALL) }.is_null() {
            return Ok(());
        }
        // SAFETY: after a failure there is a message, which stays until the next call by this thread.
        let said = unsafe { dlerror() };
        if said.is_null() {
            return Err("libtorch_cuda.so cannot be loaded".to_owned());
        }
        // SAFETY: it is not null and ends with a zero byte.
        let said = unsafe { CStr::from_ptr(said) }.to_string_lossy();
        Err(format!("libtorch without CUDA ({said})"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_written() {
        for (text, expected) in [
            ("auto", Ok(Choice::Auto)),
            ("cpu", Ok(Choice::Cpu)),
            ("cuda", Ok(Choice::Gpu)),
            ("cuda:3", Ok(Choice::Cuda(3))),
            ("gpu", Err("expected `auto`, `cpu`, `cuda` or `cuda:1`, found `gpu`")),
            ("cuda:x", Err("expected `auto`, `cpu`, `cuda` or `cuda:1`, found `cuda:x`")),
        ] {
            let found = text.parse::<Choice>();
            assert_eq!(found.as_ref().map_err(String::as_str), expected.as_ref().map_err(|e| *e), "{text}");
            if let Ok(choice) = found {
                assert_eq!(choice.to_string().parse(), Ok(choice));
            }
        }
    }
}
