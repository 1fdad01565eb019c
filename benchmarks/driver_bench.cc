// The ring driver alone: what a frame costs in NhiRail, sent and received, without verbs, engine
// and payload: frames from the ring's buffers, and frames that name memory of their own. Once over a
// controller that does nothing but complete descriptors (so what remains is the driver's), once over
// the NHI model, whose own work is then the difference.
//
//   driver_bench time                  one JSON line per figure: nanoseconds per frame
//   driver_bench count BYTES BATCH N [direct]
//                                      N frames over the bare controller, for callgrind, which is
//                                      told to count send_frames and receive_frames only
#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include "measure.h"
#include "rail/emulated/emulated_fabric.h"
#include "rail/shared_rail.h"
#include "rail/shared_state.h"

using namespace tbt;
using namespace tbt::rail;

namespace {

constexpr uint32_t kBatchMax = 32;
constexpr SlotId kSlot = 1;

SlotId classify(std::span<const std::byte>, uint8_t, uint8_t) noexcept { return kSlot; }

template <typename T>
T must(Result<T> result, const char* what) {
  bench::require(result.has_value(), what);
  return std::move(*result);
}

// A controller whose transmit ring 1 is wired to its own receive ring 1. It moves no payload:
// sender and receiver find what their buffers hold.
class BareController final : public nhi::PciDevice {
 public:
  explicit BareController(HostMemory& memory) : base_(memory.base()) {}

  uint32_t read32(uint32_t offset) noexcept override {
    return offset == nhi::kRegCapabilities ? 12u | nhi::kCapabilityUsb4V2 << 16 : 0;
  }
  void write32(uint32_t offset, uint32_t value) noexcept override {
    if (offset == nhi::tx_ring_register(1, 0)) tx_ = at(value);
    if (offset == nhi::rx_ring_register(1, 0)) rx_ = at(value);
    if (offset == nhi::tx_ring_register(1, nhi::kRingSize)) entries_ = value;
    if (offset == nhi::tx_ring_register(1, nhi::kRingIndex)) tx_index_ = value >> 16;
  }
  Result<uint64_t> dma_map(uint64_t offset, uint64_t) override { return offset; }
  Status dma_unmap(uint64_t, uint64_t) override { return {}; }
  [[nodiscard]] int interrupt_fd(uint32_t) const noexcept override { return -1; }
  int64_t advance(int64_t) noexcept override { return INT64_MAX; }

  // What silicon does while the processor does something else.
  void complete() noexcept {
    for (; tx_done_ != tx_index_; tx_done_ = (tx_done_ + 1) % entries_) {
      const uint32_t sent = tx_[tx_done_].word.load(std::memory_order_acquire);
      tx_[tx_done_].word.store(sent | nhi::kCompleted, std::memory_order_release);
      rx_[rx_done_].word.store((sent & 0xfffff) | nhi::kCompleted, std::memory_order_release);
      rx_done_ = (rx_done_ + 1) % entries_;
    }
  }

 private:
  [[nodiscard]] nhi::Descriptor* at(uint64_t iova) const {
    return reinterpret_cast<nhi::Descriptor*>(base_ + iova);
  }

  std::byte* base_;
  nhi::Descriptor *tx_ = nullptr, *rx_ = nullptr;
  uint32_t entries_ = 0, tx_index_ = 0, tx_done_ = 0, rx_done_ = 0;
};

// A sender and a receiver, and what stands between them.
struct Bare {
  std::unique_ptr<HostMemory> memory = must(HostMemory::create({.cables = 1}), "host memory");
  BareController controller{*memory};
  std::unique_ptr<Rail> rail;

  Bare() {
    memory->slot(kSlot).state.store(SlotState::kAttached);
    bench::require(static_cast<bool>(bring_up_nhi_rail(*memory, 0, controller)), "bring-up");
    rail = open_nhi_rail(*memory, 0, controller, kSlot, classify);
  }
  Rail& sender() { return *rail; }
  Rail& receiver() { return *rail; }
  void between() { controller.complete(); }
};

struct Modelled {
  std::unique_ptr<emulated::EmulatedFabric> fabric;
  std::array<std::unique_ptr<HostMemory>, 2> memories;
  std::array<std::unique_ptr<nhi::PciDevice>, 2> devices;
  std::array<std::unique_ptr<Rail>, 2> rails;

  Modelled() {
    emulated::FabricConfig config;
    config.hosts = 2;
    config.cables = {{0, 1, 0, 0}};
    config.params.resize(1);
    fabric = must(emulated::EmulatedFabric::create(config), "fabric");
    for (uint32_t h = 0; h < 2; ++h) {
      memories[h] = must(HostMemory::create({.cables = 1}), "host memory");
      memories[h]->slot(kSlot).state.store(SlotState::kAttached);
      fabric->attach_host(h, memories[h].get(), -1);
      devices[h] = fabric->open_device(h);
    }
    for (uint32_t h = 0; h < 2; ++h) {
      bench::require(static_cast<bool>(bring_up_nhi_rail(*memories[h], 0, *devices[h])),
                     "bring-up");
      rails[h] = open_nhi_rail(*memories[h], 0, *devices[h], kSlot, classify);
    }
  }
  Rail& sender() { return *rails[0]; }
  Rail& receiver() { return *rails[1]; }
  void between() {}
};

}  // namespace

// Not inlined, and named for callgrind.
extern "C" __attribute__((noinline)) void send_frames(Rail& rail, uint32_t bytes, uint32_t batch,
                                                      DirectMemory direct) {
  static std::array<std::byte*, kBatchMax> buffers;
  static std::array<TxFrame, kBatchMax> frames;
  for (uint32_t i = 0; i < batch; ++i) frames[i] = {bytes, 1, 1, direct};
  const size_t n = rail.tx_begin(std::span(buffers).first(batch));
  rail.tx_commit(std::span<const TxFrame>(frames).first(n));
  bench::require(n == batch, "the ring is full");
}

extern "C" __attribute__((noinline)) void receive_frames(Rail& rail, uint32_t batch) {
  static std::array<RxPacket, kBatchMax> packets;
  const size_t n = rail.rx_burst(std::span(packets).first(batch));
  rail.rx_release(std::span<const RxPacket>(packets).first(n));
  bench::require(n == batch, "a frame is missing");
}

namespace {

template <typename Setup>
double seconds(Setup& setup, uint32_t bytes, uint32_t batch, size_t frames,
               DirectMemory direct = {}) {
  const double begin = bench::now_s();
  for (size_t done = 0; done < frames; done += batch) {
    send_frames(setup.sender(), bytes, batch, direct);
    setup.between();
    receive_frames(setup.receiver(), batch);
  }
  return bench::now_s() - begin;
}

template <typename Setup>
void time_rows(const char* name, Setup& setup) {
  for (const uint32_t batch : {1u, kBatchMax}) {
    for (const uint32_t bytes : {64u, 4096u}) {
      const auto run = [&](size_t frames) { return seconds(setup, bytes, batch, frames); };
      const double each = bench::seconds_per_count(run, 20'000, 4'000'000, 0.2, 5);
      const std::string row = std::string(name) + "_batch" + std::to_string(batch);
      bench::report(row.c_str(), bytes, each * 1e9);
    }
  }
}

// Frames from a buffer that the controller finds at an address of its own: here of a part of the
// host's memory that no ring uses.
template <typename Setup>
void time_direct_rows(const char* name, Setup& setup, DirectMemory direct) {
  for (const uint32_t batch : {1u, kBatchMax}) {
    const auto run = [&](size_t frames) { return seconds(setup, 4096, batch, frames, direct); };
    const double each = bench::seconds_per_count(run, 20'000, 4'000'000, 0.2, 5);
    const std::string row = std::string(name) + "_direct_batch" + std::to_string(batch);
    bench::report(row.c_str(), 4096, each * 1e9);
  }
}

DirectMemory direct_of(HostMemory& memory, nhi::PciDevice& device) {
  const uint64_t offset = RailMemory::ip_ring_offset(memory, 0);
  const uint64_t iova = must(device.dma_map(offset, kIpRingBytes), "direct memory");
  return {memory.base() + offset, iova};
}

// What the bare controller itself takes, to be left out.
double bare_share(uint32_t batch) {
  Bare bare;
  std::array<std::byte*, kBatchMax> buffers;
  std::array<TxFrame, kBatchMax> frames;
  frames.fill({64, 1, 1});
  double spent = 0;
  constexpr size_t kFrames = 200'000;
  for (size_t done = 0; done < kFrames; done += batch) {
    (void)bare.rail->tx_begin(std::span(buffers).first(batch));
    bare.rail->tx_commit(std::span<const TxFrame>(frames).first(batch));
    const double begin = bench::now_s();
    bare.controller.complete();
    spent += bench::now_s() - begin;
    receive_frames(*bare.rail, batch);
  }
  return spent / kFrames;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 2 && std::string_view(argv[1]) == "time") {
    Bare bare;
    time_rows("driver", bare);
    time_direct_rows("driver", bare, direct_of(*bare.memory, bare.controller));
    bench::report("controller_batch32", 64, bare_share(kBatchMax) * 1e9);
    Modelled modelled;
    time_rows("model", modelled);
    time_direct_rows("model", modelled, direct_of(*modelled.memories[0], *modelled.devices[0]));
    return 0;
  }
  const bool is_direct = argc == 6 && std::string_view(argv[5]) == "direct";
  if ((argc == 5 || is_direct) && std::string_view(argv[1]) == "count") {
    Bare bare;
    const DirectMemory direct = direct_of(*bare.memory, bare.controller);
    (void)seconds(bare, static_cast<uint32_t>(std::atoi(argv[2])),
                  static_cast<uint32_t>(std::atoi(argv[3])),
                  static_cast<size_t>(std::atoi(argv[4])), is_direct ? direct : DirectMemory{});
    return 0;
  }
  std::fprintf(stderr, "usage: driver_bench time | count BYTES BATCH FRAMES [direct]\n");
  return 2;
}
