// A C face of the kernels of `kernels.cu`, with their gradients, as operations of torch on a GPU. Neither CUDA's headers nor its
// libraries are needed to build it: NVRTC and the driver are found at run time, through torch's own library that loads them.
//
// Tensors that come back belong to the caller.

#include <array>
#include <cstdint>
#include <mutex>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/custom_function.h>

#include "caught.hpp"
#include "library.hpp"

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

constexpr int MOST_GPUS = 64;
constexpr int COMPUTE_CAPABILITY_MAJOR = 75;
constexpr int COMPUTE_CAPABILITY_MINOR = 76;

// NVRTC's and the driver's functions that are used here, as their manuals declare them.
struct Cuda {
  int (*create)(void** program, const char* source, const char* name, int headers, const char* const* texts, const char* const* names);
  int (*compile)(void* program, int count, const char* const* options);
  int (*log_size)(void* program, size_t* size);
  int (*log)(void* program, char* log);
  int (*code_size)(void* program, size_t* size);
  int (*code)(void* program, char* code);
  int (*destroy)(void** program);
  int (*attribute)(int* value, int attribute, int device);
  int (*current)(void** context);
  int (*retain)(void** context, int device);
  int (*make_current)(void* context);
  int (*load)(void** module, const void* image);
  int (*function)(void** function, void* module, const char* name);
  int (*launch)(
      void* function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned shared, void* stream, void** arguments, void** extra);

  static const Cuda& get() {
    static const Cuda cuda;
    return cuda;
  }

 private:
  Cuda() {
    void* library = opened("libcaffe2_nvrtc.so", "NVRTC");
    find(library, create, "nvrtcCreateProgram");
    find(library, compile, "nvrtcCompileProgram");
    find(library, log_size, "nvrtcGetProgramLogSize");
    find(library, log, "nvrtcGetProgramLog");
    find(library, code_size, "nvrtcGetCUBINSize");
    find(library, code, "nvrtcGetCUBIN");
    find(library, destroy, "nvrtcDestroyProgram");
    find(library, attribute, "cuDeviceGetAttribute");
    find(library, current, "cuCtxGetCurrent");
    find(library, retain, "cuDevicePrimaryCtxRetain");
    find(library, make_current, "cuCtxSetCurrent");
    find(library, load, "cuModuleLoadData");
    find(library, function, "cuModuleGetFunction");
    find(library, launch, "cuLaunchKernel");
  }
};

void worked(int result, const char* what) {
  TORCH_CHECK(result == 0, "CUDA cannot ", what, ": error ", result);
}

// The kernels, in the order of their names below.
enum Kernel { SPLIT_AND_TURN, TURN_AND_JOIN, GATE, GATE_BACK, ADD_AND_NORM, ADD_AND_NORM_BACK, KERNELS };
constexpr std::array<const char*, KERNELS> NAMES = {
    "split_and_turn", "turn_and_join", "gate", "gate_back", "add_and_norm", "add_and_norm_back"};

std::string compiled(const char* source, int device) {
  const auto& cuda = Cuda::get();
  int major = 0, minor = 0;
  worked(cuda.attribute(&major, COMPUTE_CAPABILITY_MAJOR, device), "tell what the GPU is capable of");
  worked(cuda.attribute(&minor, COMPUTE_CAPABILITY_MINOR, device), "tell what the GPU is capable of");
  TORCH_CHECK(major >= 8, "the GPU has compute capability ", major, ".", minor, ", and products in bf16 begin with 8.0");
  void* program = nullptr;
  worked(cuda.create(&program, source, "kernels.cu", 0, nullptr, nullptr), "begin to compile");
  const std::string target = "--gpu-architecture=sm_" + std::to_string(10 * major + minor);
  const std::array<const char*, 2> options = {target.c_str(), "--std=c++17"};
  const int result = cuda.compile(program, options.size(), options.data());
  std::string log, code;
  size_t size = 0;
  if (result != 0) {
    if (cuda.log_size(program, &size) == 0) {
      log.resize(size);
      cuda.log(program, log.data());
    }
  } else if (cuda.code_size(program, &size) == 0) {
    code.resize(size);
    worked(cuda.code(program, code.data()), "hand out what it compiled");
  }
  cuda.destroy(&program);
  TORCH_CHECK(result == 0 && !code.empty(), "NVRTC cannot compile for ", target, ": ", log.substr(0, 400));
  return code;
}

// The kernels of each GPU that was made ready.
std::array<std::array<void*, KERNELS>, MOST_GPUS> loaded{};

void make_ready(const char* source, int device) {
  static std::mutex one_at_a_time;
  const std::lock_guard<std::mutex> guard(one_at_a_time);
  TORCH_CHECK(device < MOST_GPUS, "no kernels for GPU ", device);
  auto& kernels = loaded[device];
  if (kernels[0]) {
    return;
  }
  const auto& cuda = Cuda::get();
  const auto code = compiled(source, device);
  void* module = nullptr;
  worked(cuda.load(&module, code.data()), "load what it compiled");
  std::array<void*, KERNELS> found{};
  for (size_t at = 0; at < found.size(); ++at) {
    worked(cuda.function(&found[at], module, NAMES[at]), "find a kernel that it compiled");
  }
  kernels = found;
}

// The primary context of the GPU is current on this thread from now on, as for the runtime.
void enter(int device) {
  const auto& cuda = Cuda::get();
  void* context = nullptr;
  if (cuda.current(&context) != 0 || !context) {
    worked(cuda.retain(&context, device), "open the GPU");
    worked(cuda.make_current(context), "open the GPU");
  }
}

// Puts a kernel into the queue behind what is there. The arguments have the very types of its parameters.
template <typename... Arguments>
void launch(Kernel kernel, const at::Device& device, int64_t blocks, Arguments... arguments) {
  constexpr unsigned threads = 256;
  TORCH_CHECK(loaded[device.index()][0], "the kernels are not ready");
  enter(device.index());
  const c10::impl::VirtualGuardImpl queue(device.type());
  std::array<void*, sizeof...(arguments)> places = {static_cast<void*>(&arguments)...};
  const int result = Cuda::get().launch(
      loaded[device.index()][kernel], static_cast<unsigned>(blocks), 1, 1, threads, 1, 1, 0,
      queue.getStream(device).native_handle(), places.data(), nullptr);
  TORCH_CHECK(result == 0, "CUDA cannot begin the kernel `", NAMES[kernel], "`: error ", result);
}

int64_t blocks(int64_t threads) {
  return (threads + 255) / 256;
}

// One after the other in memory, from an address that 16 divides.
at::Tensor whole(const at::Tensor& tensor) {
  const auto dense = tensor.contiguous();
  return reinterpret_cast<uintptr_t>(dense.data_ptr()) % 16 == 0 ? dense : dense.clone();
}

struct SplitAndTurn : public Function<SplitAndTurn> {
  // `qkv` [B, T, (H + 2 K) D] to [B, T, H, D], [B, T, K, D] and [B, T, K, D].
  static variable_list forward(
      AutogradContext* context, const Variable& qkv, const Variable& cos, const Variable& sin, int64_t first, int64_t heads, int64_t kv_heads) {
    const auto from = whole(qkv);
    const int64_t rows = from.size(0), time = from.size(1), width = 2 * cos.size(1);
    const auto make = [&](int64_t heads) { return at::empty({rows, time, heads, width}, from.options()); };
    auto q = make(heads), k = make(kv_heads), v = make(kv_heads);
    run(SPLIT_AND_TURN, from, q, k, v, cos, sin, first);
    context->save_for_backward({cos, sin});
    context->saved_data["first"] = first;
    context->saved_data["heads"] = heads;
    context->saved_data["kv_heads"] = kv_heads;
    context->saved_data["sizes"] = qkv.sizes();
    context->saved_data["kind"] = qkv.options().dtype().toScalarType();
    return {q, k, v};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto sizes = context->saved_data["sizes"].toIntVector();
    const auto heads = context->saved_data["heads"].toInt(), kv_heads = context->saved_data["kv_heads"].toInt();
    const auto options = saved[0].options().dtype(context->saved_data["kind"].toScalarType());
    const auto part = [&](size_t at, int64_t heads) {
      const auto& gradient = gradients[at];
      return gradient.defined() ? whole(gradient) : at::zeros({sizes[0], sizes[1], heads, 2 * saved[0].size(1)}, options);
    };
    const auto q = part(0, heads), k = part(1, kv_heads), v = part(2, kv_heads);
    const auto joined = at::empty(sizes, options);
    run(TURN_AND_JOIN, joined, q, k, v, saved[0], saved[1], context->saved_data["first"].toInt());
    return {joined, Variable(), Variable(), Variable(), Variable(), Variable()};
  }

 private:
  static void run(
      Kernel kernel, const at::Tensor& qkv, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cos,
      const at::Tensor& sin, int64_t first) {
    const int64_t rows = q.size(0) * q.size(1), heads = q.size(2), kv_heads = k.size(2), width = q.size(3);
    launch(
        kernel, qkv.device(), blocks(rows * (heads + 2 * kv_heads) * (width / 16)), qkv.data_ptr(), q.data_ptr(), k.data_ptr(), v.data_ptr(),
        cos.data_ptr(), sin.data_ptr(), static_cast<long long>(rows), static_cast<int>(q.size(1)), static_cast<int>(first),
        static_cast<int>(heads), static_cast<int>(kv_heads), static_cast<int>(width));
  }
};

struct Gate : public Function<Gate> {
  // `gate_up` [.., 2 F] to [.., F].
  static Variable forward(AutogradContext* context, const Variable& gate_up) {
    const auto from = whole(gate_up);
    auto sizes = from.sizes().vec();
    sizes.back() /= 2;
    const auto out = at::empty(sizes, from.options());
    const int64_t width = sizes.back(), rows = out.numel() / width;
    launch(
        GATE, from.device(), blocks(rows * (width / 8)), from.data_ptr(), out.data_ptr(), static_cast<long long>(rows), static_cast<int>(width));
    context->save_for_backward({from});
    return out;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto from = context->get_saved_variables()[0], gradient = whole(gradients[0]);
    const auto out = at::empty_like(from);
    const int64_t width = gradient.size(-1), rows = gradient.numel() / width;
    launch(
        GATE_BACK, from.device(), blocks(rows * (width / 8)), gradient.data_ptr(), from.data_ptr(), out.data_ptr(),
        static_cast<long long>(rows), static_cast<int>(width));
    return {out};
  }
};

// f32 rows [.., d], and a branch, bf16 [.., d], or an undefined tensor: their norm in bf16, their sum in f32, which is the rows without a
// branch, and what the way back needs.
std::array<at::Tensor, 3> normed(const at::Tensor& rows, const at::Tensor& branch, double epsilon) {
  const int64_t width = rows.size(-1), count = rows.numel() / width;
  const auto sum = branch.defined() ? at::empty_like(rows) : rows;
  const auto norm = at::empty(rows.sizes(), rows.options().dtype(at::kBFloat16));
  const auto statistics = at::empty({count, 2}, rows.options());
  launch(
      ADD_AND_NORM, rows.device(), count, rows.data_ptr(), branch.defined() ? branch.data_ptr() : nullptr, sum.data_ptr(), norm.data_ptr(),
      statistics.data_ptr(), static_cast<int>(width), static_cast<float>(epsilon));
  return {norm, sum, statistics};
}

// The gradient of the sum, given that of the norm and what else flows to the sum, if anything: f32 to `out`, and bf16 to `narrow`, if that is
// there.
void normed_back(
    const at::Tensor& gradient, const at::Tensor& flowing, const at::Tensor& sum, const at::Tensor& statistics, const at::Tensor& out,
    const at::Tensor& narrow) {
  const int64_t width = sum.size(-1), count = sum.numel() / width;
  const auto half = sum.options().dtype(at::kBFloat16);
  const auto given = gradient.defined() ? whole(gradient) : at::zeros(sum.sizes(), half);
  const auto more = flowing.defined() ? whole(flowing) : flowing;
  launch(
      ADD_AND_NORM_BACK, sum.device(), count, given.data_ptr(), more.defined() ? more.data_ptr() : nullptr, sum.data_ptr(),
      statistics.data_ptr(), out.data_ptr(), narrow.defined() ? narrow.data_ptr() : nullptr, static_cast<int>(width));
}

struct Norm : public Function<Norm> {
  static Variable forward(AutogradContext* context, const Variable& x, double epsilon) {
    auto [norm, rows, statistics] = normed(whole(x), at::Tensor(), epsilon);
    context->save_for_backward({rows, statistics});
    return norm;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto out = at::empty_like(saved[0]);
    normed_back(gradients[0], at::Tensor(), saved[0], saved[1], out, at::Tensor());
    return {out, Variable()};
  }
};

struct AddAndNorm : public Function<AddAndNorm> {
  static variable_list forward(AutogradContext* context, const Variable& x, const Variable& branch, double epsilon) {
    auto [norm, sum, statistics] = normed(whole(x), whole(branch), epsilon);
    context->save_for_backward({sum, statistics});
    return {norm, sum};
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    const auto out = at::empty_like(saved[0]), narrow = at::empty(saved[0].sizes(), saved[0].options().dtype(at::kBFloat16));
    normed_back(gradients[0], gradients[1], saved[0], saved[1], out, narrow);
    return {out, narrow, Variable()};
  }
};

const at::Tensor& tensor(void* tensor) {
  return *static_cast<at::Tensor*>(tensor);
}

void* kept(at::Tensor tensor) {
  return new at::Tensor(std::move(tensor));
}

} // namespace

extern "C" {

// Compiles the kernels of `source` for a GPU, unless that is done.
int gm_fused_ready(const char* source, int device, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    const c10::DeviceGuard guard(at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(device)));
    enter(device);
    make_ready(source, device);
    return 0;
  });
}

// Queries, keys and values, turned, to three places.
int gm_fused_split_and_turn(
    void* qkv, void* cos, void* sin, int64_t first, int64_t heads, int64_t kv_heads, void** out, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    const c10::DeviceGuard guard(tensor(qkv).device());
    auto parts = SplitAndTurn::apply(tensor(qkv), tensor(cos), tensor(sin), first, heads, kv_heads);
    for (size_t at = 0; at < parts.size(); ++at) {
      out[at] = kept(std::move(parts[at]));
    }
    return 0;
  });
}

void* gm_fused_gate(void* gate_up, char* why, size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    const c10::DeviceGuard guard(tensor(gate_up).device());
    return kept(Gate::apply(tensor(gate_up)));
  });
}

// The norm and, where there is a branch, the sum, to two places.
int gm_fused_add_and_norm(void* x, void* branch, double epsilon, void** out, char* why, size_t room) {
  return caught<int>({why, room}, -1, [&] {
    const c10::DeviceGuard guard(tensor(x).device());
    if (!branch) {
      out[0] = kept(Norm::apply(tensor(x), epsilon));
      return 0;
    }
    auto parts = AddAndNorm::apply(tensor(x), tensor(branch), epsilon);
    out[0] = kept(std::move(parts[0]));
    out[1] = kept(std::move(parts[1]));
    return 0;
  });
}

} // extern "C"
