// A C face of torch's hooks on tensors: what is called when a backward pass has the whole gradient of one.
//
// Functions catch all exceptions; one that fails returns a negative number and writes why, as those of c10d.cpp do.

#include <cstdint>
#include <cstring>
#include <exception>

#include <ATen/core/Tensor.h>

namespace {

void tell(char* why, size_t room, const char* what) {
  if (room > 0) {
    std::strncpy(why, what, room - 1);
    why[room - 1] = 0;
  }
}

} // namespace

extern "C" {

// From now on calls `told` with `at` and each gradient of a tensor that wants gradients; returns the number of the hook.
int64_t gm_hook(
    void* tensor,
    size_t at,
    void (*told)(size_t at, void* gradient),
    char* why,
    size_t room) {
  try {
    return static_cast<at::Tensor*>(tensor)->register_hook(
        [told, at](const at::TensorBase& gradient) {
          if (gradient.defined()) {
            at::Tensor own(gradient);
            told(at, &own);
          }
        });
  } catch (const c10::Error& error) {
    tell(why, room, error.what_without_backtrace());
  } catch (const std::exception& error) {
    tell(why, room, error.what());
  }
  return -1;
}

// Calls that hook no more.
void gm_unhook(void* tensor, int64_t hook) {
  try {
    static_cast<at::Tensor*>(tensor)->remove_hook(static_cast<unsigned>(hook));
  } catch (...) {
  }
}

} // extern "C"
