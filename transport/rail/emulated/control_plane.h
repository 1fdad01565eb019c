// ControlPlane: what is behind ring 0 of the emulated controllers: the routers, and where the path
// entries in them let the data rings lead. It runs inline in whoever rings, under one lock of the
// fabric; none of it is on a data path.
#pragma once

#include "rail/emulated/engine_table.h"
#include "rail/emulated/silicon.h"

namespace tbt::rail::emulated {

class ControlPlane {
 public:
  // Everything outlives it.
  ControlPlane(FabricSilicon& fabric, const HostView* hosts, const EngineTable& engines) noexcept
      : fabric_(fabric), hosts_(hosts), engines_(engines) {}

  void power_on(uint32_t host) noexcept;
  // Doorbells of ring 0.
  void transmit(uint32_t host) noexcept;
  void receive(uint32_t host) noexcept;
  // A ring is no longer enabled: it begins again at index 0.
  void stop_ring(uint32_t host, uint32_t hop, bool tx) noexcept;
  // All rings have been stopped.
  void reset_router(uint32_t host) noexcept;
  // Other parameters, or unplugged, or plugged.
  void cable_changed(uint32_t cable) noexcept;

 private:
  struct FarEnd {
    uint8_t cable = 0, b_to_a = 0;
    uint32_t host = 0, port = 0;
    bool exists = false;
  };

  [[nodiscard]] FarEnd across(uint32_t host, uint32_t port) const noexcept;
  [[nodiscard]] Route find_route(uint32_t host, uint32_t hop) const noexcept;
  void resolve() noexcept;
  void run(uint32_t cable) noexcept;

  FabricSilicon& fabric_;
  const HostView* hosts_;
  const EngineTable& engines_;
};

}  // namespace tbt::rail::emulated
