#include "rail/emulated/control_plane.h"

namespace tbt::rail::emulated {
namespace {

// The lock of everything here. A dead holder leaves registers that each are whole; a route that it
// had not yet written is found by the next who resolves.
class Locked {
 public:
  explicit Locked(FabricSilicon& fabric) noexcept : lock_(fabric.control_lock) {
    (void)lock_.lock();
  }
  ~Locked() { lock_.unlock(); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  sys::RobustLock& lock_;
};

}  // namespace

ControlPlane::FarEnd ControlPlane::across(uint32_t host, uint32_t port) const noexcept {
  for (uint32_t i = 0; i < fabric_.cables; ++i) {
    const CableSilicon& cable = fabric_.lines[i];
    const auto number = static_cast<uint8_t>(i);
    if (cable.host_a == host && cable.ordinal_a == port) {
      return {number, 0, cable.host_b, cable.ordinal_b, true};
    }
    if (cable.host_b == host && cable.ordinal_b == port) {
      return {number, 1, cable.host_a, cable.ordinal_a, true};
    }
  }
  return {};
}

Route ControlPlane::find_route(uint32_t host, uint32_t hop) const noexcept {
  const FarEnd far = across(host, hop - 1);
  if (!far.exists) return {};
  return {Route::State::kOpen, far.cable, far.b_to_a, static_cast<uint8_t>(far.host),
          static_cast<uint8_t>(far.port + 1)};
}

// First whatever ends, then whatever begins, so that a receive ring changes hands cleanly. A ring
// that has a flow gets no second one.
void ControlPlane::resolve() noexcept {
  for (const bool opens : {false, true}) {
    for (uint32_t h = 0; h < fabric_.hosts; ++h) {
      for (uint32_t hop = 1; hop < fabric_.hop_count; ++hop) {
        DmaEngine& engine = *engines_.flow(h, hop);
        Route next = find_route(h, hop);
        if (next == engine.route() || opens != (next.state == Route::State::kOpen)) continue;
        if (opens && fabric_.nhis[next.host].rx[next.hop].feeder.load() != 0) continue;
        engine.change_route(next);
        engine.run_thoroughly();
      }
    }
  }
}

void ControlPlane::power_on(uint32_t) noexcept {
  const Locked lock(fabric_);
  resolve();
}

void ControlPlane::transmit(uint32_t) noexcept {}
void ControlPlane::receive(uint32_t) noexcept {}

void ControlPlane::stop_ring(uint32_t host, uint32_t hop, bool tx) noexcept {
  const Locked lock(fabric_);
  RingRegisters& regs = tx ? fabric_.nhis[host].tx[hop] : fabric_.nhis[host].rx[hop];
  DmaEngine* const engine = tx ? engines_.flow(host, hop) : engines_.feeder(regs);
  if (engine != nullptr) tx ? engine->reset_tx() : engine->reset_rx();
  regs.own_half.store(0, std::memory_order_relaxed);
}

void ControlPlane::reset_router(uint32_t) noexcept {}

void ControlPlane::cable_changed(uint32_t cable) noexcept { run(cable); }

void ControlPlane::run(uint32_t cable) noexcept {
  for (uint32_t h = 0; h < fabric_.hosts; ++h) {
    for (uint32_t hop = 1; hop < fabric_.hop_count; ++hop) {
      DmaEngine& engine = *engines_.flow(h, hop);
      const Route route = engine.route();
      if (route.state != Route::State::kNone && route.cable == cable) engine.run_thoroughly();
    }
  }
}

}  // namespace tbt::rail::emulated
