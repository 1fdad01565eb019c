// RcLoss: packets of reliable connections lost on purpose, between the engine and the rails
// (TBT_RC_DROP, tbt(7)).
//
// For programs that stay on one host, where no emulated cable can lose anything, and for programs
// whose datagrams must arrive while their connections recover. A cable's own faults are in
// rail/emulated/.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/rng.h"
#include "fabric/cable_settings.h"
#include "tbt/status.h"
#include "wire/packet.h"

namespace tbt::device {

class RcLoss {
 public:
  RcLoss(uint32_t ppm, uint64_t seed) noexcept : ppm_(ppm), rng_(seed) {}

  // Parts per million; 0 if the variable is not set. EINVAL: not a percentage.
  static Result<uint32_t> from_environment() {
    const char* text = ::secure_getenv("TBT_RC_DROP");
    if (text == nullptr || *text == '\0') return 0u;
    fabric::CableSettings settings;
    const std::string wrong = fabric::parse_cable_text(std::string("drop=") + text, settings);
    const auto& drop = settings.values[fabric::kDropPpm];
    if (!wrong.empty() || !drop) return Status(EINVAL, "TBT_RC_DROP is no percentage");
    return static_cast<uint32_t>(*drop);
  }

  bool takes(const wire::PacketHeaders& headers) noexcept {
    if (ppm_ == 0) [[likely]]
      return false;
    constexpr uint8_t kServiceMask = 0xe0;
    const uint8_t service = headers.opcode & kServiceMask;
    const bool rc = service == 0 || service == wire::kXrcBase ||
                    headers.opcode == static_cast<uint8_t>(wire::Opcode::kRcSack);
    return rc && rng_.chance_ppm(ppm_);
  }

 private:
  uint32_t ppm_;
  Rng rng_;
};

}  // namespace tbt::device
