//! What scores cost. Shapes: B rows, T tokens, V ids; or N positions in the place of B and T.

use tch::{Kind, Reduction, TchError, Tensor};

use crate::loader::IGNORED;

/// Losses in nats, `-ln p`, of `targets` `[B, T]` given scores `[B, T, V]`: `[B, T]`, 0 where nothing is predicted.
pub(super) fn nats(logits: &Tensor, targets: &Tensor) -> Result<Tensor, TchError> {
    let (ids, last) = (targets.f_reshape([-1])?, logits.size().last().copied().unwrap_or(1));
    let logits = logits.f_to_kind(Kind::Float)?.f_reshape([-1, last])?;
    logits.f_cross_entropy_loss(&ids, None::<&Tensor>, Reduction::None, IGNORED, 0.0)?.f_view_as(targets)
}

/// The losses in nats, and the squares of the logarithms of what the scores of each position add up to (the z-loss
/// before its coefficient): both `[B, T]`, 0 where nothing is predicted.
pub(super) fn nats_and_z(logits: &Tensor, targets: &Tensor) -> Result<[Tensor; 2], TchError> {
    let logits = logits.f_to_kind(Kind::Float)?;
    let predicted = targets.f_ne(IGNORED)?;
    let sum = logits.f_logsumexp([-1_i64].as_slice(), false)?;
    let ids = targets.f_clamp_min(0)?.f_unsqueeze(-1)?;
    let nats = sum.f_sub(&logits.f_gather(-1, &ids, false)?.f_squeeze_dim(-1)?)?;
    Ok([nats.f_mul(&predicted)?, sum.f_square()?.f_mul(&predicted)?])
}
