// A C face of what torch knows of a GPU's memory, of its profiler, and of a GPU's name.

#include <cstdlib>
#include <memory>
#include <set>

#include <c10/core/CachingDeviceAllocator.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include "caught.hpp"
#include "library.hpp"

namespace {

using torch::profiler::impl::ActivityType;
using torch::profiler::impl::ProfilerConfig;
using torch::profiler::impl::ProfilerState;

ProfilerConfig all_threads() {
  ProfilerConfig config(ProfilerState::KINETO);
  config.experimental_config.profile_all_threads = true;
  return config;
}

// What is noted: what a processor does, and a GPU, if there is one.
std::set<ActivityType> noted(bool gpu) {
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (gpu) {
    activities.insert(ActivityType::CUDA);
  }
  return activities;
}

} // namespace

extern "C" {

// Bytes of a GPU that tensors have now, and that they had at most.
int gm_memory(int device, int64_t* bytes, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    const auto stats = c10::getDeviceAllocator(c10::DeviceType::CUDA)->getDeviceStats(static_cast<c10::DeviceIndex>(device));
    bytes[0] = stats.allocated_bytes[0].current;
    bytes[1] = stats.allocated_bytes[0].peak;
    return 0;
  });
}

// What the driver calls a GPU.
int gm_gpu_name(int device, char* name, size_t length, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    int (*tell)(char*, int, int) = nullptr;
    find(opened("libcuda.so.1", "CUDA's driver"), tell, "cuDeviceGetName");
    TORCH_CHECK(tell(name, static_cast<int>(length), device) == 0, "the driver does not tell the name of GPU ", device);
    return 0;
  });
}

// Once, on the process's first thread, on which alone the profiler comes up without a complaint.
int gm_trace_prepare(bool gpu, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    // It complains to stderr, of machines without a GPU too; what fails is told by what is not there.
    setenv("KINETO_LOG_LEVEL", "5", 0);
    torch::autograd::profiler::prepareProfiler(all_threads(), noted(gpu));
    return 0;
  });
}

// Once the profiler is ready: from now on notes what threads ask of torch, and what a GPU does.
int gm_trace_begin(bool gpu, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    torch::autograd::profiler::enableProfiler(all_threads(), noted(gpu));
    return 0;
  });
}

// On the same thread: writes what was noted since then, in Chrome's format.
int gm_trace_end(const char* path, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    torch::autograd::profiler::disableProfiler()->save(path);
    return 0;
  });
}

} // extern "C"
