// What the registers of a controller say, read and nothing else: no register whose reading changes
// something (the interrupt status) is touched. For `tbt nhi probe`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "rail/nhi/pci_device.h"

namespace tbt::tool {

struct RingView {
  uint32_t ring = 0;
  uint32_t tx_options = 0, rx_options = 0;
  uint32_t tx_entries = 0, rx_entries = 0;
};

struct NhiView {
  bool gone = false;
  uint32_t hops = 0, version = 0;
  bool usb4_v2 = false;
  uint32_t dma_misc = 0, firmware_status = 0, firmware_mode = 0;
  std::vector<RingView> rings;  // that somebody has set up
};

NhiView probe_nhi(rail::nhi::PciDevice& device);

// One fact a line, "name  value". Nothing but "gone" of a controller that does not answer.
std::vector<std::string> describe(const NhiView& view, rail::nhi::PciIdentity identity);

}  // namespace tbt::tool
