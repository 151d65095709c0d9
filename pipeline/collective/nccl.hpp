// NCCL's collective operations on tensors of a GPU, as works of c10d. Neither CUDA's headers nor NCCL's are needed to build it: the
// library is the one that torch's CUDA half brings, found at run time.

#pragma once

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "library.hpp"

namespace {

// NCCL's functions that are used here, as nccl.h declares them.
struct Library {
  struct Id {
    char bytes[128];
  };

  int (*make_id)(Id* id);
  int (*connect)(void** ranks, int count, Id id, int rank);
  int (*all_reduce)(const void* from, void* to, size_t count, int kind, int operation, void* ranks, void* stream);
  int (*reduce)(const void* from, void* to, size_t count, int kind, int operation, int root, void* ranks, void* stream);
  int (*broadcast)(const void* from, void* to, size_t count, int kind, int root, void* ranks, void* stream);
  int (*failure)(void* ranks, int* result);
  int (*disconnect)(void* ranks);
  const char* (*last_error)(void* ranks);

  static const Library& get() {
    static const Library library;
    return library;
  }

  void worked(int result, const char* what, void* ranks = nullptr) const {
    if (result != 0) {
      const char* why = last_error(ranks);
      TORCH_CHECK(false, "NCCL cannot ", what, ": error ", result, why && *why ? std::string(", ") + why : "");
    }
  }

 private:
  Library() {
    void* library = opened("libnccl.so.2", "NCCL");
    find(library, make_id, "ncclGetUniqueId");
    find(library, connect, "ncclCommInitRank");
    find(library, all_reduce, "ncclAllReduce");
    find(library, reduce, "ncclReduce");
    find(library, broadcast, "ncclBroadcast");
    find(library, failure, "ncclCommGetAsyncError");
    find(library, disconnect, "ncclCommDestroy");
    find(library, last_error, "ncclGetLastError");
  }
};

// NCCL's number of a kind of values.
inline int nccl_kind(at::ScalarType kind) {
  switch (kind) {
    case at::kByte:
      return 1;
    case at::kInt:
      return 2;
    case at::kLong:
      return 4;
    case at::kHalf:
      return 6;
    case at::kFloat:
      return 7;
    case at::kDouble:
      return 8;
    case at::kBFloat16:
      return 9;
    default:
      TORCH_CHECK(false, "NCCL does not add up ", kind);
  }
}

// An operation under way on a GPU, which keeps its tensor.
struct NcclWork : public c10d::Work {
  NcclWork(at::Tensor tensor, void* ranks, c10::Event done) : tensor_(std::move(tensor)), ranks_(ranks), done_(std::move(done)) {}

  bool isCompleted() override {
    check();
    return done_.query();
  }

  bool wait(std::chrono::milliseconds timeout) override {
    // Most take less than a turn of the scheduler.
    constexpr auto look = std::chrono::microseconds(20);
    const auto began = std::chrono::steady_clock::now();
    while (!isCompleted()) {
      const bool over = timeout.count() > 0 && std::chrono::steady_clock::now() - began > timeout;
      TORCH_CHECK(!over, "not done in time");
      std::this_thread::sleep_for(look);
    }
    return true;
  }

 private:
  void check() const {
    const auto& library = Library::get();
    int result = 0;
    library.worked(library.failure(ranks_, &result), "tell how it goes", ranks_);
    library.worked(result, "go on", ranks_);
  }

  at::Tensor tensor_;
  void* ranks_;
  c10::Event done_;
};

// All ranks, each with the GPU of the tensor that it is made with.
class Nccl {
 public:
  Nccl(const c10::intrusive_ptr<c10d::Store>& store, int rank, int ranks, const at::Device& device)
      : device_(device), stream_(c10::impl::VirtualGuardImpl(device.type()).getStreamFromGlobalPool(device, true)) {
    const auto& library = Library::get();
    Library::Id id{};
    if (rank == 0) {
      library.worked(library.make_id(&id), "begin");
      store->set("nccl", std::vector<uint8_t>(id.bytes, id.bytes + sizeof(id.bytes)));
    } else {
      const auto told = store->get("nccl");
      TORCH_CHECK(told.size() == sizeof(id.bytes), "rank 0 told ", told.size(), " bytes to meet for NCCL");
      std::memcpy(id.bytes, told.data(), sizeof(id.bytes));
    }
    const c10::DeviceGuard guard(device);
    library.worked(library.connect(&ranks_, ranks, id, rank), "connect the ranks");
  }

  Nccl(const Nccl&) = delete;
  Nccl& operator=(const Nccl&) = delete;

  ~Nccl() {
    Library::get().disconnect(ranks_);
  }

  c10::intrusive_ptr<c10d::Work> all_reduce(const at::Tensor& tensor) {
    return begin(tensor, "add up", [&](void* values, size_t count, int kind, void* stream) {
      return Library::get().all_reduce(values, values, count, kind, SUM, ranks_, stream);
    });
  }

  c10::intrusive_ptr<c10d::Work> reduce(const at::Tensor& tensor, int root) {
    return begin(tensor, "add up", [&](void* values, size_t count, int kind, void* stream) {
      return Library::get().reduce(values, values, count, kind, SUM, root, ranks_, stream);
    });
  }

  c10::intrusive_ptr<c10d::Work> broadcast(const at::Tensor& tensor, int root) {
    return begin(tensor, "copy", [&](void* values, size_t count, int kind, void* stream) {
      return Library::get().broadcast(values, values, count, kind, root, ranks_, stream);
    });
  }

 private:
  static constexpr int SUM = 0;

  // On a stream of its own, behind what is in the queue now: what comes into the queue later goes on beside it.
  template <typename Act>
  c10::intrusive_ptr<c10d::Work> begin(const at::Tensor& tensor, const char* what, Act act) {
    TORCH_CHECK(tensor.device() == device_, "the tensor lies on ", tensor.device(), ", and the ranks met with ", device_);
    TORCH_CHECK(tensor.is_contiguous(), "the tensor has gaps");
    const c10::DeviceGuard guard(device_);
    c10::Event ready(device_.type());
    ready.record(c10::impl::VirtualGuardImpl(device_.type()).getStream(device_));
    ready.block(stream_);
    Library::get().worked(
        act(tensor.data_ptr(), static_cast<size_t>(tensor.numel()), nccl_kind(tensor.scalar_type()), stream_.native_handle()), what, ranks_);
    c10::Event done(device_.type());
    done.record(stream_);
    return c10::make_intrusive<NcclWork>(tensor, ranks_, std::move(done));
  }

  at::Device device_;
  c10::Stream stream_;
  void* ranks_ = nullptr;
};

} // namespace
