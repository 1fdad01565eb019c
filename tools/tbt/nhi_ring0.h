// Ring 0 of a controller that nobody else drives: reads the first dword of its router's
// configuration, found by looking at the ring, or after an interrupt. The first time that a
// controller reaches memory, so for `tbt nhi ring0`.
#pragma once

#include <cstdint>

#include "base/time.h"
#include "rail/host_memory.h"
#include "rail/nhi/control_ring.h"
#include "rail/nhi/pci_device.h"
#include "tbt/status.h"

namespace tbt::tool {

struct RouterAnswer {
  uint32_t ids = 0;  // vendor 15:0, device 31:16
  Duration took{};
  // The answer was there, and the interrupt that was asked for was not.
  bool without_interrupt = false;
};

enum class Wait : uint8_t { kByPolling, kForInterrupt };

class RouterReader {
 public:
  // Memory and device outlive it.
  RouterReader(rail::HostMemory& memory, rail::nhi::PciDevice& device,
               Duration answer_max = Duration::from_s(1)) noexcept
      : device_(device), answer_max_(answer_max), ring_(memory, device) {}

  Status start() noexcept { return ring_.start(); }
  // ETIMEDOUT: no answer. EPROTO: one that is none. ENODEV: the controller is gone.
  Result<RouterAnswer> read_ids(Wait wait);

 private:
  void drop_what_is_there();
  [[nodiscard]] bool ask();
  bool wait_for_interrupt(Instant end) noexcept;
  Status why_nothing_came() noexcept;
  Result<uint32_t> take_answer();

  rail::nhi::PciDevice& device_;
  const Duration answer_max_;
  rail::nhi::ControlRing ring_;
  uint8_t sequence_ = 0;
};

}  // namespace tbt::tool
