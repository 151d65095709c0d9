// A C face of torch.distributed's own c10d: stores, and collective operations, of Gloo on tensors of a processor and of NCCL on those of a
// GPU.
//
// What is returned as a pointer is freed by the function of that name, once.

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include <c10/util/Logging.h>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "caught.hpp"
#include "nccl.hpp"

namespace {

using StorePtr = c10::intrusive_ptr<c10d::Store>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// The ranks that met. Those with tensors on GPUs connect for them when the first comes.
struct Group {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  StorePtr store;
  int rank;
  int ranks;
  std::unique_ptr<Nccl> nccl;

  Nccl& of(const at::Tensor& tensor) {
    if (!nccl) {
      nccl = std::make_unique<Nccl>(store, rank, ranks, tensor.device());
    }
    return *nccl;
  }
};

std::chrono::milliseconds milliseconds(int64_t count) {
  return std::chrono::milliseconds(count);
}

// What c10d has to say comes back as errors; without this it also writes warnings with stack traces to stderr. And it notes every operation
// for whom debugs it, in one place of a process, which ranks that are threads of one process, as in tests, overrun.
void quieten() {
  setenv("TORCH_FR_BUFFER_SIZE", "0", 0);
  constexpr int errors = 2;
  FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, errors);
}

// A client and, if `serves`, a server. `attempt` keeps apart the keys of restarts that share a server.
StorePtr tcp_store(
    const char* host,
    uint16_t port,
    bool serves,
    int64_t timeout,
    const char* attempt) {
  quieten();
  c10d::TCPStoreOptions options;
  options.port = port;
  options.isServer = serves;
  options.waitWorkers = false;
  options.timeout = milliseconds(timeout);
  auto store = c10::make_intrusive<c10d::TCPStore>(host, options);
  return c10::make_intrusive<c10d::PrefixStore>(attempt, store);
}

StorePtr file_store(const char* path, int ranks, int64_t timeout) {
  quieten();
  auto store = c10::make_intrusive<c10d::FileStore>(path, ranks);
  store->setTimeout(milliseconds(timeout));
  return store;
}

// The way to the other ranks: through an interface by name, or the one of an address, or else of the machine's name.
std::shared_ptr<::gloo::transport::Device> device(
    const std::string& interface,
    const std::string& address) {
  if (!interface.empty()) {
    return c10d::ProcessGroupGloo::createDeviceForInterface(interface);
  }
  return address.empty()
      ? c10d::ProcessGroupGloo::createDefaultDevice()
      : c10d::ProcessGroupGloo::createDeviceForHostname(address);
}

Group& group_of(void* group) {
  return *static_cast<Group*>(group);
}

const at::Tensor& tensor_of(void* tensor) {
  return *static_cast<at::Tensor*>(tensor);
}

void* keep(WorkPtr work) {
  return new WorkPtr(std::move(work));
}

} // namespace

extern "C" {

void* gm_store_tcp(
    const char* host,
    uint16_t port,
    bool serves,
    int64_t timeout,
    const char* attempt,
    char* why,
    size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    return new StorePtr(tcp_store(host, port, serves, timeout, attempt));
  });
}

void* gm_store_file(
    const char* path,
    int ranks,
    int64_t timeout,
    char* why,
    size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    return new StorePtr(file_store(path, ranks, timeout));
  });
}

// A second way to the same store, for another thread.
void* gm_store_clone(void* store, char* why, size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    return new StorePtr((*static_cast<StorePtr*>(store))->clone());
  });
}

void gm_store_free(void* store) {
  caught<int>({nullptr, 0}, -1, [&] {
    delete static_cast<StorePtr*>(store);
    return 0;
  });
}

int gm_store_set(
    void* store,
    const char* key,
    const uint8_t* value,
    size_t length,
    char* why,
    size_t room) {
  return caught({why, room}, -1, [&] {
    (*static_cast<StorePtr*>(store))
        ->set(key, std::vector<uint8_t>(value, value + length));
    return 0;
  });
}

// 1 if the key is there, 0 if not.
int gm_store_check(void* store, const char* key, char* why, size_t room) {
  return caught({why, room}, -1, [&] {
    return (*static_cast<StorePtr*>(store))->check({key}) ? 1 : 0;
  });
}

// Hands the value of a key that is there to `take`.
int gm_store_get(
    void* store,
    const char* key,
    void (*take)(void* place, const uint8_t* value, size_t length),
    void* place,
    char* why,
    size_t room) {
  return caught({why, room}, -1, [&] {
    auto value = (*static_cast<StorePtr*>(store))->get(key);
    take(place, value.data(), value.size());
    return 0;
  });
}

// The sum after adding, or a negative number.
int64_t gm_store_add(
    void* store,
    const char* key,
    int64_t value,
    char* why,
    size_t room) {
  return caught<int64_t>({why, room}, -1, [&] {
    return (*static_cast<StorePtr*>(store))->add(key, value);
  });
}

// Connects with all ranks, each of which does the same at the same time; `to_connect` and `to_work` are the most milliseconds that
// this, and later one operation, may take.
void* gm_group(
    void* store,
    int rank,
    int ranks,
    const char* interface,
    const char* address,
    int64_t to_connect,
    int64_t to_work,
    char* why,
    size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(to_connect));
    options->devices.push_back(device(interface, address));
    auto prefixed = c10::make_intrusive<c10d::PrefixStore>(
        "gloo", *static_cast<StorePtr*>(store));
    auto group = c10::make_intrusive<c10d::ProcessGroupGloo>(
        prefixed, rank, ranks, options);
    static_cast<c10d::Backend&>(*group).setTimeout(milliseconds(to_work));
    return new Group{std::move(group), prefixed, rank, ranks, nullptr};
  });
}

void gm_group_free(void* group) {
  caught<int>({nullptr, 0}, -1, [&] {
    delete static_cast<Group*>(group);
    return 0;
  });
}

// Adds up a tensor over all ranks, in place. The work ends with gm_work_wait.
void* gm_all_reduce(void* group, void* tensor, char* why, size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    const auto& values = tensor_of(tensor);
    if (values.is_cuda()) {
      return keep(group_of(group).of(values).all_reduce(values));
    }
    std::vector<at::Tensor> tensors = {values};
    return keep(group_of(group).gloo->allreduce(tensors));
  });
}

// The same, where only `root` gets the sum.
void* gm_reduce(void* group, void* tensor, int root, char* why, size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    const auto& values = tensor_of(tensor);
    if (values.is_cuda()) {
      return keep(group_of(group).of(values).reduce(values, root));
    }
    std::vector<at::Tensor> tensors = {values};
    c10d::ReduceOptions options;
    options.rootRank = root;
    return keep(group_of(group).gloo->reduce(tensors, options));
  });
}

void* gm_broadcast(void* group, void* tensor, int root, char* why, size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    const auto& values = tensor_of(tensor);
    if (values.is_cuda()) {
      return keep(group_of(group).of(values).broadcast(values, root));
    }
    std::vector<at::Tensor> tensors = {values};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return keep(group_of(group).gloo->broadcast(tensors, options));
  });
}

void* gm_barrier(void* group, char* why, size_t room) {
  return caught<void*>({why, room}, nullptr, [&] {
    return keep(group_of(group).gloo->barrier());
  });
}

// 1 when it is done, 0 when it is not after this time.
int gm_work_wait(void* work, int64_t timeout, char* why, size_t room) {
  return caught({why, room}, -1, [&] {
    auto& done = *static_cast<WorkPtr*>(work);
    try {
      done->wait(milliseconds(timeout));
    } catch (...) {
      if (!done->isCompleted()) {
        return 0;
      }
      // It may have ended after the wait did: now it says how.
      done->wait();
    }
    return 1;
  });
}

void gm_work_free(void* work) {
  caught<int>({nullptr, 0}, -1, [&] {
    delete static_cast<WorkPtr*>(work);
    return 0;
  });
}

} // extern "C"
