// One-way time of a frame over the rails alone, without verbs and engine: two processes, each
// pinned to a core, throw one frame to and fro. Half of the median round trip is printed, for an
// ideal cable and for the loopback, beside the same for one shared cache line (the floor of the
// machine).
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "rail/emulated/emulated_fabric.h"
#include "rail/shared_rail.h"
#include "sys/barrier.h"
#include "sys/event_fd.h"
#include "sys/monotonic_clock.h"

namespace {

using namespace tbt;
using namespace tbt::rail;

constexpr int kRounds = 200000;
constexpr int kWarmUp = 20000;
constexpr int kChunk = 100;  // rounds per sample: the clock costs as much as a round

SlotId classify(std::span<const std::byte> head, uint8_t, uint8_t) noexcept {
  return static_cast<SlotId>(head[0]);
}

[[noreturn]] void die(Status status) {
  std::fprintf(stderr, "rail_pingpong: %.*s\n", static_cast<int>(status.text().size()),
               status.text().data());
  std::exit(1);
}

template <typename T>
T must(Result<T> result) {
  if (!result) die(result.error());
  return std::move(*result);
}

void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) std::perror("rail_pingpong: sched_setaffinity");
}

// One side of a game: `hit` sends, `wait` blocks until the other side's arrived.
struct Side {
  std::function<void()> hit, wait;
};

double serve(const Side& side) {
  std::vector<double> samples;
  for (int i = 0; i < kWarmUp; ++i) side.hit(), side.wait();
  for (int i = 0; i < kRounds / kChunk; ++i) {
    const int64_t begin = sys::monotonic_now().ns;
    for (int k = 0; k < kChunk; ++k) side.hit(), side.wait();
    samples.push_back(static_cast<double>(sys::monotonic_now().ns - begin) / kChunk / 2);
  }
  std::nth_element(samples.begin(), samples.begin() + samples.size() / 2, samples.end());
  return samples[samples.size() / 2];
}

void play(const char* name, const std::function<Side(int who)>& open) {
  const pid_t other = fork();
  if (other == 0) {
    pin(1);
    const Side side = open(1);
    for (int i = 0; i < kWarmUp + kRounds; ++i) side.wait(), side.hit();
    _exit(0);
  }
  pin(0);
  const double ns = serve(open(0));
  std::printf("%-22s %8.0f ns one way\n", name, ns);
  waitpid(other, nullptr, 0);
}

Side on_rail(std::shared_ptr<Rail> rail, SlotId peer, uint32_t length) {
  Side side;
  side.hit = [rail, peer, length] {
    std::byte* buffer = nullptr;
    while (rail->tx_begin({&buffer, 1}) == 0) sys::cpu_relax();
    buffer[0] = static_cast<std::byte>(peer);
    const TxFrame frame{length, 1, 1};
    rail->tx_commit({&frame, 1});
  };
  side.wait = [rail] {
    RxPacket packet;
    while (!rail->rx_pending()) sys::cpu_relax();
    while (rail->rx_burst({&packet, 1}) == 0) sys::cpu_relax();
    rail->rx_release({&packet, 1});
  };
  return side;
}

Side on_line(std::atomic<uint32_t>* lines, int who) {
  auto count = std::make_shared<uint32_t>(0);
  std::atomic<uint32_t>& mine = lines[who * 16];
  std::atomic<uint32_t>& theirs = lines[(1 - who) * 16];
  auto heard = std::make_shared<uint32_t>(0);
  return {[&mine, count] { mine.store(++*count, std::memory_order_release); },
          [&theirs, heard] {
            while (theirs.load(std::memory_order_acquire) == *heard) sys::cpu_relax();
            ++*heard;
          }};
}

struct Fabric {
  std::unique_ptr<emulated::EmulatedFabric> silicon;
  std::array<std::unique_ptr<HostMemory>, 2> memories;
  std::array<std::unique_ptr<nhi::PciDevice>, 2> devices;

  Fabric() {
    emulated::FabricConfig config;
    config.hosts = 2;
    config.cables = {{0, 1, 0, 0}};
    config.params.resize(1);
    silicon = must(emulated::EmulatedFabric::create(config));
    for (uint32_t h = 0; h < 2; ++h) {
      memories[h] = must(HostMemory::create({.cables = 1}));
      silicon->attach_host(h, memories[h].get(), -1);
      devices[h] = silicon->open_device(h);
      for (SlotId s = 1; s < 3; ++s) memories[h]->slot(s).state.store(SlotState::kAttached);
    }
    for (uint32_t h = 0; h < 2; ++h) {
      if (const Status s = bring_up_nhi_rail(*memories[h], 0, *devices[h]); !s) die(s);
    }
  }
};

}  // namespace

int main() {
  void* page = mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto* lines = static_cast<std::atomic<uint32_t>*>(page);
  play("one cache line", [&](int who) { return on_line(lines, who); });
  for (const uint32_t length : {64u, 4096u}) {
    Fabric fabric;
    char name[40];
    std::snprintf(name, sizeof name, "cable, %u B", length);
    play(name, [&](int who) {
      const auto h = static_cast<uint32_t>(who);
      return on_rail(open_nhi_rail(*fabric.memories[h], 0, *fabric.devices[h], 1, classify), 1,
                     length);
    });
    std::snprintf(name, sizeof name, "loopback, %u B", length);
    play(name, [&](int who) {
      const auto slot = static_cast<SlotId>(1 + who);
      const auto peer = static_cast<SlotId>(2 - who);
      return on_rail(open_loopback_rail(*fabric.memories[0], slot, classify), peer, length);
    });
  }
  return 0;
}
