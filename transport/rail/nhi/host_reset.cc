#include "rail/nhi/host_reset.h"

#include "rail/nhi/nhi_regs.h"

namespace tbt::rail::nhi {
namespace {

constexpr uint32_t kReset = 1;
constexpr uint32_t kLookUs = 1000;

struct ResetTimes {
  uint32_t before_us;  // no look before this
  uint32_t looks;      // kLookUs apart
};
constexpr ResetTimes kTimesV2{100000, 500};
constexpr ResetTimes kTimesV1{0, 10};

}  // namespace

Status reset_host_router(PciDevice& device, const SleepUs& sleep_us) {
  const uint32_t capabilities = device.read32(kRegCapabilities);
  if (capabilities == kDeviceGone) return Status(ENODEV, "the controller is gone");
  const bool v2 = capability_version(capabilities) >= kCapabilityUsb4V2;
  const ResetTimes times = v2 ? kTimesV2 : kTimesV1;
  const uint32_t reg = v2 ? kRegResetV2 : kRegResetV1;
  device.write32(reg, kReset);
  if (times.before_us != 0) sleep_us(times.before_us);
  for (uint32_t look = 0; look < times.looks; ++look) {
    const uint32_t value = device.read32(reg);
    if (value == kDeviceGone) return Status(ENODEV, "the controller is gone");
    if ((value & kReset) == 0) return {};
    sleep_us(kLookUs);
  }
  return Status(ETIMEDOUT, "the host router reset does not end");
}

}  // namespace tbt::rail::nhi
