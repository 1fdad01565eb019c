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
constexpr uint32_t kVersion = 1;

size_t silicon_bytes(uint32_t cables) noexcept {
  return sizeof(FabricSilicon) + sizeof(QueueSlot) * kQueueSlots * 2 * cables;
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

void store_params(CableSilicon& cable, const CableParams& p) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  cable.rate_bps.store(p.rate_bps, kOrder);
  cable.latency_ns.store(p.latency_ns, kOrder);
  cable.drop_ppm.store(p.drop_ppm, kOrder);
  cable.corrupt_ppm.store(p.corrupt_ppm, kOrder);
  cable.duplicate_ppm.store(p.duplicate_ppm, kOrder);
  cable.lost_interrupt_ppm.store(p.lost_interrupt_ppm, kOrder);
  cable.stranded_ppm.store(p.stranded_ppm, kOrder);
  cable.plugged.store(p.plugged ? 1 : 0, std::memory_order_seq_cst);
  cable.ideal.store(CableModel::is_ideal(p) ? 1 : 0, std::memory_order_seq_cst);
}

CableParams load_params(const CableSilicon& cable) noexcept {
  constexpr auto kOrder = std::memory_order_relaxed;
  CableParams p;
  p.rate_bps = cable.rate_bps.load(kOrder);
  p.latency_ns = cable.latency_ns.load(kOrder);
  p.drop_ppm = cable.drop_ppm.load(kOrder);
  p.corrupt_ppm = cable.corrupt_ppm.load(kOrder);
  p.duplicate_ppm = cable.duplicate_ppm.load(kOrder);
  p.lost_interrupt_ppm = cable.lost_interrupt_ppm.load(kOrder);
  p.stranded_ppm = cable.stranded_ppm.load(kOrder);
  p.plugged = cable.plugged.load(std::memory_order_acquire) != 0;
  return p;
}

void fill_silicon(FabricSilicon& silicon, const FabricConfig& config) {
  silicon.version = kVersion;
  silicon.hosts = config.hosts;
  silicon.cables = static_cast<uint32_t>(config.cables.size());
  silicon.hop_count = config.hop_count;
  silicon.usb4_v2 = config.usb4_v2;
  silicon.intel = config.intel;
  silicon.e2e = config.e2e;
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
  explicit State(sys::SharedMemory m);

  void connect(uint32_t cable);

  sys::SharedMemory memory;
  FabricSilicon& silicon;
  std::array<HostView, kHostsMax> hosts;
  std::vector<std::unique_ptr<DmaEngine>> engines;  // two per cable: a to b, b to a
  std::array<EngineTable, kHostsMax> tables;
};

EmulatedFabric::State::State(sys::SharedMemory m)
    : memory(std::move(m)), silicon(*reinterpret_cast<FabricSilicon*>(memory.base())) {
  for (uint32_t h = 0; h < silicon.hosts; ++h) hosts[h].nhi = &silicon.nhis[h];
  for (uint32_t c = 0; c < silicon.cables; ++c) connect(c);
}

// Ring pair ordinal + 1 at either end; path and credits are fixed.
void EmulatedFabric::State::connect(uint32_t number) {
  CableSilicon& cable = silicon.lines[number];
  auto* queues = reinterpret_cast<QueueSlot*>(memory.base() + sizeof(FabricSilicon));
  queues += size_t{kQueueSlots} * 2 * number;
  const DmaEngine::End a{&hosts[cable.host_a], cable.ordinal_a + 1};
  const DmaEngine::End b{&hosts[cable.host_b], cable.ordinal_b + 1};
  engines.push_back(std::make_unique<DmaEngine>(silicon, cable, cable.a_to_b, queues, a, b));
  engines.push_back(
      std::make_unique<DmaEngine>(silicon, cable, cable.b_to_a, queues + kQueueSlots, b, a));
  DmaEngine* const a_to_b = engines[engines.size() - 2].get();
  DmaEngine* const b_to_a = engines.back().get();
  tables[cable.host_a][a.hop] = {a_to_b, b_to_a};
  tables[cable.host_b][b.hop] = {b_to_a, a_to_b};
}

EmulatedFabric::EmulatedFabric() = default;
EmulatedFabric::~EmulatedFabric() = default;

Result<std::unique_ptr<EmulatedFabric>> EmulatedFabric::create(const FabricConfig& config) {
  if (const Status s = check_config(config); !s) return s;
  const auto cables = static_cast<uint32_t>(config.cables.size());
  auto memory = sys::SharedMemory::create("tbt-silicon", silicon_bytes(cables));
  if (!memory) return memory.error();
  fill_silicon(*reinterpret_cast<FabricSilicon*>(memory->base()), config);
  std::unique_ptr<EmulatedFabric> fabric(new EmulatedFabric);
  fabric->state_ = std::make_unique<State>(std::move(*memory));
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
                     memory->bytes() == silicon_bytes(silicon.cables);
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
  state_->engines[2 * cable]->run_thoroughly();
  state_->engines[2 * cable + 1]->run_thoroughly();
  if (was_plugged == params.plugged) return;
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

NhiCounters EmulatedFabric::counters(uint32_t host) const noexcept {
  TBT_ASSERT(host < hosts());
  const NhiSilicon& nhi = state_->silicon.nhis[host];
  return {nhi.dma_faults.load(), nhi.misuse.load(),   misuse_text(nhi.last_misuse.load()),
          nhi.pdf_drops.load(),  nhi.overruns.load(), nhi.unreachable.load(),
          nhi.interrupts.load()};
}

void EmulatedFabric::remove_device(uint32_t host, bool removed) noexcept {
  TBT_ASSERT(host < hosts());
  state_->silicon.nhis[host].removed.store(removed ? 1 : 0, std::memory_order_seq_cst);
}

std::unique_ptr<nhi::PciDevice> EmulatedFabric::open_device(uint32_t host) {
  TBT_ASSERT(host < hosts());
  return std::make_unique<NhiModel>(state_->silicon, state_->hosts[host], state_->tables[host]);
}

}  // namespace tbt::rail::emulated
