#include "rail/host_memory.h"

#include <sched.h>

#include <bit>
#include <cstring>
#include <utility>

#include "base/assert.h"
#include "rail/capture.h"
#include "rail/shared_state.h"
#include "sys/event_fd.h"
#include "sys/futex.h"
#include "sys/mmap.h"

namespace tbt::rail {
namespace {

constexpr uint64_t kMagic = 0x31'6d'65'6d'74'62'74'21;  // "!tbtmem1"
constexpr uint32_t kVersion = 5;
constexpr size_t kPage = 4096;
constexpr size_t kLargePage = sys::kLargePageBytes;

constexpr size_t round_up(size_t n, size_t to) noexcept { return (n + to - 1) / to * to; }

bool is_valid(const HostConfig& config) noexcept {
  return config.cables < kRailsMax && std::has_single_bit(config.ring_entries) &&
         config.ring_entries >= 4 && config.ring_entries <= 4096 &&
         config.rx_buffers > config.ring_entries && config.rx_buffers <= 32768;
}

size_t control_offset() noexcept { return round_up(sizeof(HostHeader), kPage); }
size_t rails_offset() noexcept { return round_up(control_offset() + kControlBytes, kLargePage); }

size_t directory_offset(const HostConfig& config, const RailGeometry& geometry) noexcept {
  return rails_offset() + geometry.bytes * (config.cables + 1);
}

size_t ip_rings_offset(const HostConfig& config, const RailGeometry& geometry) noexcept {
  return directory_offset(config, geometry) + kDirectoryBytes;
}

// The file is sparse: what nobody uses, or populates, costs nothing.
size_t all_bytes(const HostConfig& config, const RailGeometry& geometry) noexcept {
  return round_up(ip_rings_offset(config, geometry) + kIpRingBytes * config.cables, kLargePage);
}

}  // namespace

RailGeometry RailGeometry::of(const HostConfig& config) noexcept {
  RailGeometry g;
  g.ring_entries = config.ring_entries;
  g.buffers = config.rx_buffers;
  g.inbox_entries = std::bit_ceil(config.rx_buffers);  // it can never be full
  g.ring_buffers = round_up(sizeof(RailState), 64);
  g.marks = round_up(g.ring_buffers + sizeof(uint32_t) * g.ring_entries, 64);
  g.inbox_area = round_up(g.marks + sizeof(BufferMark) * g.buffers, 64);
  g.capture_area = g.inbox_area + sizeof(InboxEntry) * g.inbox_entries * kSlotsMax;
  g.dma = round_up(g.capture_area + sizeof(CaptureEntry) * kCaptureEntries, kLargePage);
  g.rx_descriptors = g.dma + sizeof(nhi::Descriptor) * g.ring_entries;
  g.tx_buffers = round_up(g.rx_descriptors + sizeof(nhi::Descriptor) * g.ring_entries, kPage);
  g.rx_buffers = g.tx_buffers + kFrameBytes * g.ring_entries;
  g.dma_end = g.rx_buffers + kFrameBytes * g.buffers;
  g.bytes = round_up(g.dma_end, kLargePage);
  return g;
}

struct HostMemory::Layout {
  explicit Layout(sys::SharedMemory m) noexcept : memory(std::move(m)) {}

  sys::SharedMemory memory;
  HostConfig config;  // our own copy: the one in the memory is checked once
  RailGeometry geometry;
  int daemon_wake_fd = -1;

  [[nodiscard]] HostHeader& header() const noexcept {
    return *reinterpret_cast<HostHeader*>(memory.base());
  }
};

HostMemory::HostMemory() = default;
HostMemory::~HostMemory() = default;

uint64_t HostMemory::dma_bytes_of(const HostConfig& config) noexcept {
  const RailGeometry geometry = RailGeometry::of(config);
  return kControlBytes + (geometry.dma_end - geometry.dma + kIpRingBytes) * config.cables;
}

Result<std::unique_ptr<HostMemory>> HostMemory::create(const HostConfig& config,
                                                       sys::Pages pages) {
  if (!is_valid(config)) return Status(EINVAL, "host memory: impossible ring or buffer counts");
  const RailGeometry geometry = RailGeometry::of(config);
  auto memory = sys::SharedMemory::create("tbt-host", all_bytes(config, geometry), pages);
  if (!memory) return memory.error();
  auto* header = reinterpret_cast<HostHeader*>(memory->base());
  header->version = kVersion;
  header->config = config;
  header->magic = kMagic;
  std::unique_ptr<HostMemory> host(new HostMemory);
  host->layout_ = std::make_unique<Layout>(std::move(*memory));
  host->layout_->config = config;
  host->layout_->geometry = geometry;
  return host;
}

Result<std::unique_ptr<HostMemory>> HostMemory::map(sys::UniqueFd fd) {
  auto memory = sys::SharedMemory::map(std::move(fd));
  if (!memory) return memory.error();
  if (memory->bytes() < sizeof(HostHeader)) return Status(EPROTO, "host memory is too small");
  const auto* header = reinterpret_cast<const HostHeader*>(memory->base());
  if (header->magic != kMagic) return Status(EPROTO, "not a host memory");
  if (header->version != kVersion) return Status(EPROTO, "host memory of another version");
  const HostConfig config = header->config;
  if (!is_valid(config)) return Status(EPROTO, "host memory: impossible ring or buffer counts");
  const RailGeometry geometry = RailGeometry::of(config);
  if (memory->bytes() != all_bytes(config, geometry)) {
    return Status(EPROTO, "host memory has the wrong size");
  }
  std::unique_ptr<HostMemory> host(new HostMemory);
  host->layout_ = std::make_unique<Layout>(std::move(*memory));
  host->layout_->config = config;
  host->layout_->geometry = geometry;
  return host;
}

int HostMemory::fd() const noexcept { return layout_->memory.fd(); }
std::byte* HostMemory::base() const noexcept { return layout_->memory.base(); }
size_t HostMemory::bytes() const noexcept { return layout_->memory.bytes(); }
size_t HostMemory::page_bytes() const noexcept { return layout_->memory.page_bytes(); }
uint32_t HostMemory::cables() const noexcept { return layout_->config.cables; }
const HostConfig& HostMemory::config() const noexcept { return layout_->config; }

Slot& HostMemory::slot(SlotId id) noexcept {
  TBT_ASSERT(id < kSlotsMax);
  return layout_->header().slots[id];
}

std::byte* HostMemory::directory() noexcept {
  return base() + directory_offset(layout_->config, layout_->geometry);
}

void HostMemory::populate() const noexcept {
  const RailGeometry& geometry = layout_->geometry;
  layout_->memory.populate(0, rails_offset());
  for (uint32_t rail = 0; rail <= cables(); ++rail) {
    layout_->memory.populate(rails_offset() + geometry.bytes * rail, geometry.capture_area);
    populate_for_peer(rail);
  }
  layout_->memory.populate(directory_offset(layout_->config, geometry), kDirectoryBytes);
}

void HostMemory::populate_for_peer(uint32_t rail) const noexcept {
  const RailGeometry& geometry = layout_->geometry;
  layout_->memory.populate(0, rails_offset());  // whom to wake
  layout_->memory.populate(rails_offset() + geometry.bytes * rail + geometry.dma,
                           geometry.bytes - geometry.dma);
}

void HostMemory::set_daemon_wake_fd(int fd) noexcept { layout_->daemon_wake_fd = fd; }

// No wake-up is lost: the sleeper writes `sleeping` and then looks for work, the waker makes the
// work visible and then exchanges `sleeping`. Both are read-modify-writes of one word, so one of
// them sees the other.
uint32_t HostMemory::prepare_sleep(SlotId id) noexcept {
  Slot& s = slot(id);
  const uint32_t seen = s.wake.load(std::memory_order_relaxed);
  s.sleeping.exchange(1, std::memory_order_seq_cst);
  return seen;
}

void HostMemory::cancel_sleep(SlotId id) noexcept {
  slot(id).sleeping.store(0, std::memory_order_relaxed);
}

void HostMemory::sleep(SlotId id, uint32_t seen, int64_t timeout_ns) noexcept {
  Slot& s = slot(id);
  if (s.wake.load(std::memory_order_acquire) == seen) sys::futex_wait(&s.wake, seen, timeout_ns);
  cancel_sleep(id);
}

void HostMemory::wake(SlotId id) noexcept {
  Slot& s = slot(id);
  if (s.sleeping.exchange(0, std::memory_order_seq_cst) == 0) return;
  s.wake.fetch_add(1, std::memory_order_release);
  if (id == kDaemonSlot) {
    if (layout_->daemon_wake_fd >= 0) sys::signal_eventfd(layout_->daemon_wake_fd);
  } else {
    sys::futex_wake_all(&s.wake);
  }
}

void HostMemory::wake_for_interrupt() noexcept {
  bool woken = false;
  for (SlotId id = 1; id < kSlotsMax; ++id) {
    if (slot(id).sleeping.load(std::memory_order_relaxed) == 0) continue;
    wake(id);
    woken = true;
  }
  if (woken) return;
  slot(kDaemonSlot).sleeping.store(0, std::memory_order_relaxed);
  slot(kDaemonSlot).wake.fetch_add(1, std::memory_order_release);
  if (layout_->daemon_wake_fd >= 0) sys::signal_eventfd(layout_->daemon_wake_fd);
}

HostHeader& RailMemory::header(HostMemory& memory) noexcept { return memory.layout_->header(); }

const RailGeometry& RailMemory::geometry(const HostMemory& memory) noexcept {
  return memory.layout_->geometry;
}

RailState& RailMemory::rail(HostMemory& memory, uint32_t rail) noexcept {
  TBT_ASSERT(rail <= memory.cables());
  const size_t offset = rails_offset() + memory.layout_->geometry.bytes * rail;
  return *reinterpret_cast<RailState*>(memory.base() + offset);
}

uint64_t RailMemory::control_offset() noexcept { return rail::control_offset(); }

uint64_t RailMemory::ip_ring_offset(HostMemory& memory, uint32_t port) noexcept {
  TBT_ASSERT(port < memory.cables());
  return ip_rings_offset(memory.config(), geometry(memory)) + kIpRingBytes * port;
}

uint64_t RailMemory::dma_offset(HostMemory& memory, uint32_t rail) noexcept {
  const auto* state = reinterpret_cast<const std::byte*>(&RailMemory::rail(memory, rail));
  return static_cast<uint64_t>(state - memory.base()) + geometry(memory).dma;
}

uint64_t RailMemory::dma_bytes(const HostMemory& memory) noexcept {
  return geometry(memory).dma_end - geometry(memory).dma;
}

}  // namespace tbt::rail
