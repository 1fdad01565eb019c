// HostMemory: the one shared, DMA-able memory of a host (a sealed memfd made by its daemon), mapped
// by every attached process. It holds, in this order: a header, the slot table, the memory of ring
// 0, one SharedRailState per rail (rings, buffers, inboxes, locks), a directory page range that
// fabric/ fills (this room does not look inside), and per cable the memory of a ring pair for
// ThunderboltIP, of which only the daemon knows.
//
// Ownership: the daemon creates it and hands its descriptor out; the memory lives as long as
// anybody maps it, so a killed host leaves nothing behind. Every field that two processes touch is
// atomic or under a named lock.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "rail/rail.h"
#include "sys/mmap.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::rail {

inline constexpr uint32_t kRailsMax = 9;  // 8 cables, and the loopback as the last one
inline constexpr size_t kDirectoryBytes = 64 * 1024;

enum class SlotState : uint32_t { kFree = 0, kAttached = 1, kDead = 2 };

// One attached process. `wake` is a futex word: bumped and woken by whoever puts something in the
// inbox of a slot whose `sleeping` is set.
struct alignas(64) Slot {
  std::atomic<SlotState> state;
  std::atomic<int32_t> pid;
  // Local QPN numbers used by this process are [qpn_first, qpn_next), modulo 2^18; qpn_next goes on
  // over the lives of a slot.
  std::atomic<uint32_t> qpn_first;
  std::atomic<uint32_t> qpn_next;
  // What the process says of its registered memory, for the status: mapped so that the controller
  // reads it by itself; and how many regions could not be, so that their payload is copied.
  std::atomic<uint64_t> direct_bytes;
  std::atomic<uint32_t> copied_regions;
  alignas(64) std::atomic<uint32_t> wake;
  std::atomic<uint32_t> sleeping;
};

struct HostConfig {
  uint32_t cables = 0;          // rails 0..cables-1 are cables, rail `cables` is the loopback
  uint32_t ring_entries = 256;  // descriptors per ring, power of two
  uint32_t rx_buffers = 768;    // receive buffers per rail, > ring_entries
};

class HostMemory {
 public:
  // `pages`: an IOMMU maps a large one by one entry.
  static Result<std::unique_ptr<HostMemory>> create(const HostConfig& config,
                                                    sys::Pages pages = sys::Pages::kSmall);
  // Maps memory made by another process; refuses what has the wrong magic, version or size.
  static Result<std::unique_ptr<HostMemory>> map(sys::UniqueFd fd);
  ~HostMemory();
  HostMemory(const HostMemory&) = delete;
  HostMemory& operator=(const HostMemory&) = delete;

  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] std::byte* base() const noexcept;
  [[nodiscard]] size_t bytes() const noexcept;
  [[nodiscard]] size_t page_bytes() const noexcept;
  // What the owner of a controller maps of such a memory, and so locks: the rings and buffers of
  // ring 0 and of all cables, and of as many ring pairs for ThunderboltIP.
  static uint64_t dma_bytes_of(const HostConfig& config) noexcept;
  [[nodiscard]] uint32_t cables() const noexcept;
  [[nodiscard]] const HostConfig& config() const noexcept;

  [[nodiscard]] Slot& slot(SlotId id) noexcept;
  [[nodiscard]] std::byte* directory() noexcept;  // kDirectoryBytes, page aligned, zero at creation

  // Takes the page faults of what a data path uses now (sys/mmap.h: populate): all but the copies
  // that `tbt dump` reads, and the rings for ThunderboltIP.
  void populate() const noexcept;
  // The same of what the model of the controller at the other end of a cable uses.
  void populate_for_peer(uint32_t rail) const noexcept;

  // Wakes the process in `id` if it sleeps (and clears its `sleeping`); one atomic operation if it
  // does not. Slot 0, the daemon, is woken through the interrupt descriptor given here, once, by
  // each process.
  void wake(SlotId id) noexcept;
  // What an interrupt of the host does: wakes every sleeping process but the daemon; if there is
  // none, the daemon. Whoever wakes looks into the rings and passes on what is not its own, so the
  // daemon is spared while somebody else can do it.
  void wake_for_interrupt() noexcept;
  void set_daemon_wake_fd(int fd) noexcept;  // not owned

  // Says that `id` is about to sleep, and returns slot.wake. The caller then looks once more for
  // work (and arms the rails); if there is none it calls sleep() with that value, else
  // cancel_sleep().
  uint32_t prepare_sleep(SlotId id) noexcept;
  void cancel_sleep(SlotId id) noexcept;
  // Sleeps until woken or until `timeout_ns` has passed. The daemon waits on its descriptors
  // instead, between prepare_sleep and cancel_sleep.
  void sleep(SlotId id, uint32_t seen, int64_t timeout_ns) noexcept;

 private:
  HostMemory();
  struct Layout;
  std::unique_ptr<Layout> layout_;
  friend class RailMemory;
};

}  // namespace tbt::rail
