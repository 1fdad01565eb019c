// ControlPlane: what is behind ring 0 of the emulated controllers: a host router each, the packets
// between them and their hosts, and where the path entries in the routers let the data rings lead.
// It runs inline in whoever rings, under one lock of the fabric; none of it is on a data path.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "rail/emulated/control_trace.h"
#include "rail/emulated/engine_table.h"
#include "rail/emulated/router_model.h"
#include "rail/emulated/silicon.h"

namespace tbt::rail::emulated {

class ControlPlane {
 public:
  // Everything outlives it.
  ControlPlane(FabricSilicon& fabric, const HostView* hosts, const EngineTable& engines) noexcept
      : fabric_(fabric), hosts_(hosts), engines_(engines) {}

  // Of the whole fabric, once. `seed` goes into the routers' unique ids.
  void power_on(uint64_t seed) noexcept;
  // FabricConfig::fixed_paths.
  void fix_paths() noexcept;

  // Doorbells of ring 0, and a look at what waits for it.
  void transmit(uint32_t host) noexcept;
  void receive(uint32_t host) noexcept;
  // A ring is no longer enabled: it begins again at index 0.
  void stop_ring(uint32_t host, uint32_t hop, bool tx) noexcept;
  // The host interface was reset; all rings have been stopped.
  void reset_router(uint32_t host) noexcept;
  // A cable has other parameters, or was plugged or unplugged.
  void cable_changed(uint32_t cable) noexcept;

  // Shows what this process does with ring 0 of any host.
  void set_tap(ControlTap tap) { tap_ = std::move(tap); }

 private:
  class Turn;
  struct FarEnd {
    uint8_t cable = 0, b_to_a = 0;
    uint32_t host = 0, port = 0;
    bool exists = false;
  };

  [[nodiscard]] RouterModel router(uint32_t host) const noexcept {
    return RouterModel(fabric_.nhis[host].router);
  }
  [[nodiscard]] FarEnd across(uint32_t host, uint32_t port) const noexcept;
  [[nodiscard]] uint32_t ports_of(uint32_t host) const noexcept;

  // All with the control lock held.
  void take_sent(uint32_t host) noexcept;
  bool fetch(uint32_t host, uint32_t index, std::span<const std::byte>& bytes,
             uint8_t& pdf) noexcept;
  void carry(uint32_t host, const RouterOutput& output) noexcept;
  void carry_over(uint32_t host, const RouterOutput::Packet& packet) noexcept;
  bool survives(const FarEnd& far, size_t bytes) noexcept;
  void train_cable(uint32_t cable) noexcept;
  void queue(uint32_t host, const wire::tb::ControlFrame& frame) noexcept;
  void feed(uint32_t host) noexcept;
  bool place(uint32_t host, uint32_t index, const ControlQueue::Packet& packet) noexcept;
  void set_fixed_paths(uint32_t host) noexcept;
  void set_path(uint32_t host, uint32_t adapter, uint32_t hop_id, uint32_t egress,
                uint32_t next) noexcept;
  [[nodiscard]] uint64_t generation() const noexcept;
  [[nodiscard]] Route find_route(uint32_t host, uint32_t hop) const noexcept;
  void resolve() noexcept;
  void change_route(uint32_t host, uint32_t hop, Route next, bool opens) noexcept;

  FabricSilicon& fabric_;
  const HostView* hosts_;
  const EngineTable& engines_;
  ControlTap tap_;
};

}  // namespace tbt::rail::emulated
