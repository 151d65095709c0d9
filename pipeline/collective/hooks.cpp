// A C face of torch's hooks on tensors: what is called when a backward pass has the whole gradient of one.

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <c10/core/AutogradState.h>

#include "caught.hpp"

extern "C" {

// From now on calls `told` with `at` and each gradient of a tensor that wants gradients; returns the number of the hook.
int64_t gm_hook(
    void* tensor,
    size_t at,
    void (*told)(size_t at, void* gradient),
    char* why,
    size_t room) {
  return caught<int64_t>({why, room}, -1, [&] {
    return static_cast<int64_t>(static_cast<at::Tensor*>(tensor)->register_hook(
        [told, at](const at::TensorBase& gradient) {
          if (gradient.defined()) {
            at::Tensor own(gradient);
            told(at, &own);
          }
        }));
  });
}

// Whether backward passes that this thread begins run on it only, those on a GPU too, from now on; whether they did before.
bool gm_backward_on_this_thread(bool only) {
  auto& state = c10::AutogradState::get_tls_state();
  const bool before = !state.get_multithreading_enabled();
  state.set_multithreading_enabled(!only);
  return before;
}

// Calls that hook no more.
void gm_unhook(void* tensor, int64_t hook) {
  try {
    static_cast<at::Tensor*>(tensor)->remove_hook(static_cast<unsigned>(hook));
  } catch (...) {
  }
}

} // extern "C"
