// Libraries that are found at run time: those that a build must not need.

#pragma once

#include <dlfcn.h>

#include <c10/util/Exception.h>

namespace {

// `called` is what people know it by.
inline void* opened(const char* name, const char* called) {
  void* library = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
  TORCH_CHECK(library, called, " is not found: ", dlerror());
  return library;
}

template <typename Function>
void find(void* library, Function& function, const char* name) {
  function = reinterpret_cast<Function>(dlsym(library, name));
  TORCH_CHECK(function, "a library is not the one expected: ", dlerror());
}

} // namespace
