// torch's own fused AdamW, for which tch has no name.

#include <cstdint>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>

#include "caught.hpp"

namespace {

std::vector<at::Tensor> list(void* const* tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t at = 0; at < count; ++at) {
    list.push_back(*static_cast<at::Tensor*>(tensors[at]));
  }
  return list;
}

} // namespace

extern "C" {

// Updates `count` parameters of one device, which have one weight decay, in place. Gradients are multiplied by `scale` first; or, where there
// are `divisor` and `skip`, values on the device, divided by the first, and nothing is updated where the second is 1.
int gm_adamw(
    void* const* weights,
    void* const* gradients,
    void* const* means,
    void* const* squares,
    size_t count,
    double step,
    double scale,
    void* divisor,
    void* skip,
    double rate,
    double mean_beta,
    double square_beta,
    double decay,
    double epsilon,
    char* why,
    size_t room) {
  return caught<int>({why, room}, -1, [&] {
    const c10::AutoGradMode without(false);
    const auto parameters = list(weights, count);
    if (parameters.empty()) {
      return 0;
    }
    const auto options = parameters[0].options().dtype(at::kFloat).requires_grad(false);
    const std::vector<at::Tensor> steps(count, at::full({}, step, options));
    // The kernel divides by it.
    std::optional<at::Tensor> unscaled, skipped;
    if (divisor && skip) {
      unscaled = *static_cast<at::Tensor*>(divisor);
      skipped = *static_cast<at::Tensor*>(skip);
    } else if (scale != 1.0) {
      unscaled = at::full({}, 1.0 / scale, options);
    }
    at::_fused_adamw_(
        parameters, list(gradients, count), list(means, count), list(squares, count), {}, steps, rate, mean_beta,
        square_beta, decay, epsilon, false, false, unscaled, skipped);
    return 0;
  });
}
}
