#include "rail/emulated/emulated_fabric.h"

#include <new>
#include <utility>

#include "base/assert.h"
#include "rail/emulated/nhi_model.h"
#include "sys/event_fd.h"
#include "sys/mmap.h"

namespace tbt::rail::emulated {
namespace {

constexpr uint64_t kMagic = 0x31'62'61'66'74'62'74'21;  // "!tbtfab1"
constexpr uint32_t kVersion = 3;

// The cables' queues are touched only where a ring is in use: the rest stays sparse (populate).
size_t silicon_bytes(uint32_t hosts, uint32_t hop_count) noexcept {
  return sizeof(FabricSilicon) + sizeof(QueueSlot) * kQueueSlots * hosts * hop_count;
}

Status check_ends(const FabricConfig& config, const CableEnds& ends) {
  if (ends.host_a >= config.hosts || ends.host_b >= config.hosts) {
    return Status(EINVAL, "a cable ends at a host that does not exist");
  }
  if (ends.host_a == ends.host_b) return Status(EINVAL, "a cable has both ends at one host");
  const uint32_t rings = config.hop_count - 1;  // ring 0 is the control channel's
  if (ends.ordinal_a >= rings || ends.ordinal_b >= rings) {
    return Status(EINVAL, "more cables on a host than its controller has ring pairs");
  }
  if (ends.ordinal_a >= kRailsMax - 1 || ends.ordinal_b >= kRailsMax - 1) {
    return Status(EINVAL, "more than 8 cables on a host");
  }
  return {};
}

Status check_config(const FabricConfig& config) {
  if (config.hosts == 0 || config.hosts > kHostsMax)
    return Status(EINVAL, "a fabric has 1 to 8 hosts");
  if (config.hop_count != 3 && config.hop_count != 12 && config.hop_count != 32) {
    return Status(EINVAL, "a controller has 3, 12 or 32 hops");
  }
  if (config.cables.size() > kCablesMax) return Status(EINVAL, "a fabric has at most 28 cables");
  if (config.guests >> config.hosts != 0) return Status(EINVAL, "no such host to be a guest");
  if (config.params.size() != config.cables.size())
    return Status(EINVAL, "one set of parameters per cable");
  bool used[kHostsMax][kRailsMax] = {};
  for (const CableEnds& ends : config.cables) {
    if (const Status s = check_ends(config, ends); !s) return s;
    bool& a = used[ends.host_a][ends.ordinal_a];
    bool& b = used[ends.host_b][ends.ordinal_b];
    if (a || b) return Status(EINVAL, "two cables in one port");
    a = b = true;
  }
  return {};
}

void fill_silicon(FabricSilicon& silicon, const FabricConfig& config) {
  silicon.version = kVersion;
  silicon.hosts = config.hosts;
  silicon.cables = static_cast<uint32_t>(config.cables.size());
  silicon.hop_count = config.hop_count;
  silicon.usb4_v2 = config.usb4_v2;
  silicon.amd = config.amd;
  silicon.e2e = config.e2e;
  silicon.e2e_sticks = config.e2e && config.e2e_sticks;
  for (uint32_t h = 0; h < config.hosts; ++h) silicon.nhis[h].guest.store(config.guests >> h & 1);
  if (config.guests != 0) silicon.timed.store(1);  // frames wait on the cable for its process
  for (uint32_t i = 0; i < silicon.cables; ++i) {
    CableSilicon& cable = silicon.lines[i];
    const CableEnds& ends = config.cables[i];
    cable.host_a = ends.host_a;
    cable.host_b = ends.host_b;
    cable.ordinal_a = ends.ordinal_a;
    cable.ordinal_b = ends.ordinal_b;
    new (&cable.a_to_b.model) CableModel(config.seed * 1000003 + 2 * i);
    new (&cable.b_to_a.model) CableModel(config.seed * 1000003 + 2 * i + 1);
    store_params(cable, config.params[i]);
    if (!CableModel::is_ideal(config.params[i])) silicon.timed.store(1);
  }
  silicon.magic = kMagic;
}

}  // namespace

struct EmulatedFabric::State {
  explicit State(sys::SharedMemory m)
      : memory(std::move(m)),
        silicon(*reinterpret_cast<FabricSilicon*>(memory.base())),
        hosts(views(silicon)),
        engines(silicon, hosts.data(),
                reinterpret_cast<QueueSlot*>(memory.base() + sizeof(FabricSilicon))),
        control(silicon, hosts.data(), engines) {}

  static std::array<HostView, kHostsMax> views(FabricSilicon& silicon) {
    std::array<HostView, kHostsMax> hosts;
    for (uint32_t h = 0; h < silicon.hosts; ++h) hosts[h].nhi = &silicon.nhis[h];
    return hosts;
  }

  sys::SharedMemory memory;
  FabricSilicon& silicon;
  std::array<HostView, kHostsMax> hosts;
  EngineTable engines;
  ControlPlane control;
};

EmulatedFabric::EmulatedFabric() = default;
EmulatedFabric::~EmulatedFabric() = default;

Result<std::unique_ptr<EmulatedFabric>> EmulatedFabric::create(const FabricConfig& config) {
  if (const Status s = check_config(config); !s) return s;
  auto memory =
      sys::SharedMemory::create("tbt-silicon", silicon_bytes(config.hosts, config.hop_count));
  if (!memory) return memory.error();
  fill_silicon(*reinterpret_cast<FabricSilicon*>(memory->base()), config);
  std::unique_ptr<EmulatedFabric> fabric(new EmulatedFabric);
  fabric->state_ = std::make_unique<State>(std::move(*memory));
  fabric->state_->control.power_on(config.seed);
  if (config.fixed_paths) fabric->state_->control.fix_paths();
  return fabric;
}

Result<std::unique_ptr<EmulatedFabric>> EmulatedFabric::map(sys::UniqueFd fd) {
  auto memory = sys::SharedMemory::map(std::move(fd));
  if (!memory) return memory.error();
  if (memory->bytes() < sizeof(FabricSilicon))
    return Status(EPROTO, "emulated fabric is too small");
  const auto& silicon = *reinterpret_cast<const FabricSilicon*>(memory->base());
  if (silicon.magic != kMagic) return Status(EPROTO, "not an emulated fabric");
  if (silicon.version != kVersion) return Status(EPROTO, "emulated fabric of another version");
  const bool sound = silicon.hosts <= kHostsMax && silicon.cables <= kCablesMax &&
                     silicon.hop_count <= nhi::kHopsMax &&
                     memory->bytes() == silicon_bytes(silicon.hosts, silicon.hop_count);
  if (!sound) return Status(EPROTO, "emulated fabric has the wrong size");
  std::unique_ptr<EmulatedFabric> fabric(new EmulatedFabric);
  fabric->state_ = std::make_unique<State>(std::move(*memory));
  return fabric;
}

int EmulatedFabric::fd() const noexcept { return state_->memory.fd(); }
uint32_t EmulatedFabric::hosts() const noexcept { return state_->silicon.hosts; }
uint32_t EmulatedFabric::cables() const noexcept { return state_->silicon.cables; }

CableEnds EmulatedFabric::ends(uint32_t cable) const noexcept {
  TBT_ASSERT(cable < cables());
  const CableSilicon& c = state_->silicon.lines[cable];
  return {c.host_a, c.host_b, c.ordinal_a, c.ordinal_b};
}

CableParams EmulatedFabric::params(uint32_t cable) const noexcept {
  TBT_ASSERT(cable < cables());
  return load_params(state_->silicon.lines[cable]);
}

void EmulatedFabric::set_params(uint32_t cable, const CableParams& params) noexcept {
  TBT_ASSERT(cable < cables());
  CableSilicon& c = state_->silicon.lines[cable];
  const bool was_plugged = load_params(c).plugged;
  if (!CableModel::is_ideal(params)) state_->silicon.timed.store(1, std::memory_order_seq_cst);
  store_params(c, params);
  state_->control.cable_changed(cable);
  if (was_plugged != params.plugged) wake_ends(cable);
}

void EmulatedFabric::wake_ends(uint32_t cable) noexcept {
  const CableSilicon& c = state_->silicon.lines[cable];
  for (const uint32_t host : {c.host_a, c.host_b}) {
    const HostView& view = state_->hosts[host];
    if (view.memory != nullptr) view.memory->wake_for_interrupt();
    if (view.interrupt_fd >= 0) sys::signal_eventfd(view.interrupt_fd);  // the daemon in any case
  }
}

uint32_t EmulatedFabric::cable_of(uint32_t host, uint32_t ordinal) const noexcept {
  for (uint32_t c = 0; c < cables(); ++c) {
    const CableEnds e = ends(c);
    if ((e.host_a == host && e.ordinal_a == ordinal) ||
        (e.host_b == host && e.ordinal_b == ordinal)) {
      return c;
    }
  }
  return kCablesMax;
}

void EmulatedFabric::attach_host(uint32_t host, HostMemory* memory, int interrupt_fd) noexcept {
  TBT_ASSERT(host < hosts());
  state_->hosts[host].memory = memory;
  state_->hosts[host].base = memory != nullptr ? memory->base() : nullptr;
  state_->hosts[host].interrupt_fd = interrupt_fd;
  if (memory != nullptr && interrupt_fd >= 0) memory->set_daemon_wake_fd(interrupt_fd);
}

void EmulatedFabric::attach_guest(uint32_t host, GuestPort* guest) noexcept {
  TBT_ASSERT(is_guest(host));
  state_->hosts[host].guest = guest;
}

void EmulatedFabric::guest_memory_changed(uint32_t host, uint64_t bytes) noexcept {
  NhiSilicon& nhi = state_->silicon.nhis[host];
  nhi.guest_bytes.store(bytes, std::memory_order_relaxed);
  nhi.iova_generation.fetch_add(1, std::memory_order_release);
}

bool EmulatedFabric::is_guest(uint32_t host) const noexcept {
  TBT_ASSERT(host < hosts());
  return state_->hosts[host].is_guest();
}

void EmulatedFabric::populate(uint32_t host) const noexcept {
  size_t all = state_->memory.bytes();
  for (const HostView& view : state_->hosts) {
    if (view.memory != nullptr) all += view.memory->bytes();
  }
  if (all > kPopulatedMax) return;
  const auto queue = [&](uint32_t owner, uint32_t ordinal) {  // its cable's frames leave by ring + 1
    const size_t flow = size_t{owner} * state_->silicon.hop_count + ordinal + 1;
    constexpr size_t kBytes = sizeof(QueueSlot) * kQueueSlots;
    state_->memory.populate(sizeof(FabricSilicon) + kBytes * flow, kBytes);
  };
  const auto peer = [&](uint32_t other, uint32_t ordinal) {
    queue(other, ordinal);
    const HostMemory* const memory = state_->hosts[other].memory;
    if (memory != nullptr && ordinal < memory->cables()) memory->populate_for_peer(ordinal);
  };
  state_->memory.populate(0, sizeof(FabricSilicon));
  if (state_->hosts[host].memory != nullptr) state_->hosts[host].memory->populate();
  for (uint32_t c = 0; c < cables(); ++c) {
    const CableEnds e = ends(c);
    if (e.host_a != host && e.host_b != host) continue;
    const bool at_a = e.host_a == host;
    queue(host, at_a ? e.ordinal_a : e.ordinal_b);
    peer(at_a ? e.host_b : e.host_a, at_a ? e.ordinal_b : e.ordinal_a);
  }
}

void EmulatedFabric::trace_control(ControlTap tap) { state_->control.set_tap(std::move(tap)); }

NhiCounters EmulatedFabric::counters(uint32_t host) const noexcept {
  TBT_ASSERT(host < hosts());
  const NhiSilicon& nhi = state_->silicon.nhis[host];
  uint64_t mapped = nhi.guest_bytes.load();
  for (const IovaRange& range : nhi.iova) mapped += range.bytes.load();
  return {nhi.dma_faults.load(), nhi.misuse.load(),        misuse_text(nhi.last_misuse.load()),
          nhi.pdf_drops.load(),  nhi.overruns.load(),      nhi.unreachable.load(),
          nhi.interrupts.load(), nhi.control_drops.load(), mapped};
}

void EmulatedFabric::remove_device(uint32_t host, bool removed) noexcept {
  TBT_ASSERT(host < hosts());
  state_->silicon.nhis[host].removed.store(removed ? 1 : 0, std::memory_order_seq_cst);
  for (uint32_t c = 0; c < cables(); ++c) {
    if (ends(c).host_a != host && ends(c).host_b != host) continue;
    state_->control.cable_changed(c);
    wake_ends(c);
  }
}

std::unique_ptr<nhi::PciDevice> EmulatedFabric::open_device(uint32_t host) {
  TBT_ASSERT(host < hosts());
  return std::make_unique<NhiModel>(state_->silicon, state_->hosts.data(), host, state_->engines,
                                    state_->control);
}

}  // namespace tbt::rail::emulated
