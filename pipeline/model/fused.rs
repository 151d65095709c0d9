//! Kernels of our own for an OLMo in bf16 on a GPU: turning queries and keys, the gate of the feed-forward branch, and a sum with its norm,
//! each in one pass over memory where torch takes several; with their gradients. They are compiled by NVRTC, which comes with torch's
//! CUDA half, when a GPU is first used. Memory: none but the results, and what a backward pass needs.
//!
//! Shapes: B rows, T tokens, d width, H query heads, K key and value heads, D head width, F feed-forward width.

use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::null_mut;

use tch::{Device, Kind, TchError, Tensor};

use crate::collective::call;

/// The kernels' source.
const SOURCE: &str = include_str!("fused/kernels.cu");

/// The widest rows that a norm takes, and what their width is a multiple of.
const NORM_WIDTHS: (i64, i64) = (4096, 4);

unsafe extern "C" {
    /// Of `face.cpp`, like those below.
    fn gm_fused_ready(source: *const c_char, device: c_int, why: *mut c_char, room: usize) -> c_int;
    fn gm_fused_split_and_turn(
        qkv: *mut c_void,
        cos: *mut c_void,
        sin: *mut c_void,
        first: i64,
        heads: i64,
        kv_heads: i64,
        out: *mut *mut c_void,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
    fn gm_fused_gate(gate_up: *mut c_void, why: *mut c_char, room: usize) -> *mut c_void;
    fn gm_fused_add_and_norm(
        x: *mut c_void,
        branch: *mut c_void,
        epsilon: f64,
        out: *mut *mut c_void,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// Compiles the kernels for `device`, unless that is done.
///
/// # Errors
/// Why they cannot be used: the device is no GPU, or one before compute capability 8.0, or there is no NVRTC.
pub fn ready(device: Device) -> Result<(), String> {
    let Device::Cuda(number) = device else { return Err("it is no GPU".to_owned()) };
    let source = CString::new(SOURCE).map_err(|error| error.to_string())?;
    let number = c_int::try_from(number).unwrap_or(c_int::MAX);
    // SAFETY: the source ends with a zero byte and lives through the call.
    call(|why, room| unsafe { gm_fused_ready(source.as_ptr(), number, why, room) }).map(drop)
}

/// Whether heads of this width can be turned.
pub(super) const fn turns(head_width: i64) -> bool {
    head_width % 16 == 0
}

/// Whether a feed-forward branch of this width can be gated.
pub(super) const fn gates(width: i64) -> bool {
    width % 8 == 0
}

/// Whether rows of this width can be normed.
pub(super) const fn norms(width: i64) -> bool {
    width <= NORM_WIDTHS.0 && width % NORM_WIDTHS.1 == 0
}

/// Queries, keys and values, bf16 `[B, T, (H + 2 K) D]`, apart: `[B, T, H, D]` and twice `[B, T, K, D]`; queries and keys turned by
/// the angles of their positions, which begin with `first`.
pub(super) fn split_and_turn(
    qkv: &Tensor,
    [cos, sin]: [&Tensor; 2],
    first: i64,
    [heads, kv_heads]: [i64; 2],
) -> Result<[Tensor; 3], TchError> {
    let (mut qkv, mut cos, mut sin) = (half(qkv)?, cos.shallow_clone(), sin.shallow_clone());
    let mut out = [null_mut(); 3];
    let places = [&mut qkv, &mut cos, &mut sin].map(|tensor| tensor.as_mut_ptr().cast());
    let act = |why, room| {
        let [qkv, cos, sin] = places;
        // SAFETY: three tensors that live through the call, and room for three.
        unsafe { gm_fused_split_and_turn(qkv, cos, sin, first, heads, kv_heads, out.as_mut_ptr(), why, room) }
    };
    call(act).map_err(TchError::Torch)?;
    out.map(taken).into_iter().collect::<Result<Vec<_>, _>>()?.try_into().map_err(|_| missing())
}

/// Gate and up, bf16 `[.., 2 F]`, to `silu(gate) * up`, `[.., F]`.
pub(super) fn gate(gate_up: &Tensor) -> Result<Tensor, TchError> {
    let mut gate_up = half(gate_up)?;
    let place = gate_up.as_mut_ptr().cast();
    // SAFETY: the tensor lives through the call.
    taken(call(|why, room| unsafe { gm_fused_gate(place, why, room) }).map_err(TchError::Torch)?)
}

/// The norm, bf16, without weights of f32 values `[.., d]`.
pub(super) fn norm(x: &Tensor, epsilon: f64) -> Result<Tensor, TchError> {
    let [normed, _] = add_and_norm_or_norm(x, None, epsilon)?;
    taken(normed)
}

/// The sum, f32, of values `[.., d]` and a branch, bf16, and its norm without weights, bf16.
pub(super) fn add_and_norm(x: &Tensor, branch: &Tensor, epsilon: f64) -> Result<(Tensor, Tensor), TchError> {
    let [normed, sum] = add_and_norm_or_norm(x, Some(half(branch)?), epsilon)?;
    let (normed, sum) = (taken(normed), taken(sum));
    Ok((sum?, normed?))
}

fn add_and_norm_or_norm(
    x: &Tensor,
    branch: Option<Tensor>,
    epsilon: f64,
) -> Result<[*mut c_void; 2], TchError> {
    let (mut x, mut branch, mut out) = (x.f_to_kind(Kind::Float)?, branch, [null_mut(); 2]);
    let x = x.as_mut_ptr().cast();
    let branch = branch.as_mut().map_or(null_mut(), |branch| branch.as_mut_ptr().cast());
    // SAFETY: tensors that live through the call, and room for two.
    let act = |why, room| unsafe { gm_fused_add_and_norm(x, branch, epsilon, out.as_mut_ptr(), why, room) };
    call(act).map_err(TchError::Torch)?;
    Ok(out)
}

fn half(tensor: &Tensor) -> Result<Tensor, TchError> {
    tensor.f_to_kind(Kind::BFloat16)
}

/// A tensor that the face gave away.
fn taken(pointer: *mut c_void) -> Result<Tensor, TchError> {
    if pointer.is_null() {
        return Err(missing());
    }
    // SAFETY: a tensor on the heap that nobody else frees.
    Ok(unsafe { Tensor::from_ptr(pointer.cast()) })
}

fn missing() -> TchError {
    TchError::Torch("a kernel gave nothing back".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What torch gives for the same, in f32 and by its own operations.
    #[test]
    #[ignore = "needs CUDA"]
    fn kernels_equal_torch_with_their_gradients() {
        crate::model::device::cuda().as_ref().unwrap();
        let device = Device::Cuda(0);
        ready(device).unwrap();
        tch::manual_seed(7);
        let near = |name: &str, found: &Tensor, expected: &Tensor| {
            let (found, expected) = (found.to_kind(Kind::Double), expected.to_kind(Kind::Double));
            let off = ((&found - &expected).norm() / expected.norm()).double_value(&[]);
            assert!(off < 4e-3, "{name} differs by {off}");
        };
        let random = |shape: &[i64], kind| Tensor::randn(shape, (Kind::Float, device)).to_kind(kind);
        let leaf = |x: &Tensor| x.detach().copy().set_requires_grad(true);
        let wide = |x: &Tensor| leaf(&x.to_kind(Kind::Float));
        for (rows, time, heads, kv_heads, width, first) in
            [(2, 5, 3, 3, 64, 0), (1, 7, 4, 2, 128, 3), (3, 33, 2, 1, 16, 0)]
        {
            let rotary = crate::model::rotary::Rotary::new(64, width, 10_000.0, device).unwrap();
            let x = random(&[rows, time, (heads + 2 * kv_heads) * width], Kind::BFloat16);
            let (own, whole) = (leaf(&x), wide(&x));
            let parts = split_and_turn(&own, rotary.tables(), first, [heads, kv_heads]).unwrap();
            let sizes = [heads * width, kv_heads * width, kv_heads * width];
            let split = whole.split_with_sizes(sizes, -1);
            let apart = |x: &Tensor| x.unflatten(-1, [-1, width]).transpose(1, 2);
            let turned = |x: &Tensor| rotary.turn(&apart(x), first).unwrap().transpose(1, 2);
            let expected = [turned(&split[0]), turned(&split[1]), apart(&split[2]).transpose(1, 2)];
            let (mut found_sums, mut expected_sums) = (Vec::new(), Vec::new());
            for (at, (found, expected)) in parts.iter().zip(&expected).enumerate() {
                near(&format!("part {at} of {width}"), found, expected);
                let factor = random(&expected.size(), Kind::BFloat16);
                found_sums.push((found * &factor).sum(Kind::Float));
                expected_sums.push((expected * factor.to_kind(Kind::Float)).sum(Kind::Float));
            }
            for sums in [found_sums, expected_sums] {
                Tensor::stack(&sums, 0).sum(Kind::Float).backward();
            }
            near(&format!("gradient of {width}"), &own.grad(), &whole.grad());
        }
        for shape in [[3, 7, 2 * 24], [2, 128, 2 * 3072]] {
            let x = random(&shape, Kind::BFloat16) * 3;
            let (own, whole) = (leaf(&x), wide(&x));
            let halves = whole.chunk(2, -1);
            let (found, expected) = (gate(&own).unwrap(), halves[0].silu() * &halves[1]);
            near("gate", &found, &expected);
            let factor = random(&expected.size(), Kind::BFloat16);
            (found * &factor).sum(Kind::Float).backward();
            (expected * factor.to_kind(Kind::Float)).sum(Kind::Float).backward();
            near("gradient of the gate", &own.grad(), &whole.grad());
        }
        for (shape, adds) in
            [([3, 5, 64], true), ([2, 9, 768], false), ([1, 130, 2048], true), ([2, 3, 4096], true)]
        {
            let (x, branch) = (random(&shape, Kind::Float) * 2 + 1, random(&shape, Kind::BFloat16));
            let (own, whole, own_branch, whole_branch) = (leaf(&x), leaf(&x), leaf(&branch), wide(&branch));
            let (sum, normed) = if adds {
                add_and_norm(&own, &own_branch, 1e-5).unwrap()
            } else {
                (own.shallow_clone(), norm(&own, 1e-5).unwrap())
            };
            let expected_sum = if adds { &whole + &whole_branch } else { whole.shallow_clone() };
            let expected = expected_sum.layer_norm([shape[2]], None::<&Tensor>, None::<&Tensor>, 1e-5, true);
            near("sum", &sum, &expected_sum);
            near("norm", &normed, &expected);
            let (factor, other) = (random(&shape, Kind::BFloat16), random(&shape, Kind::Float));
            ((normed * &factor).sum(Kind::Float) + (sum * &other).sum(Kind::Float)).backward();
            ((expected * factor.to_kind(Kind::Float)).sum(Kind::Float)
                + (expected_sum * other).sum(Kind::Float))
            .backward();
            near("gradient of the sum", &own.grad(), &whole.grad());
            if adds {
                near("gradient of the branch", &own_branch.grad(), &whole_branch.grad());
            }
        }
    }

    #[test]
    fn widths_that_do_not_fit_are_known() {
        assert!(turns(64) && turns(128) && !turns(24) && gates(3072) && !gates(12));
        assert!(norms(768) && norms(4096) && !norms(4100) && !norms(6));
        assert_eq!(ready(Device::Cpu), Err("it is no GPU".to_owned()));
    }
}
