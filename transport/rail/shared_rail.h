// How a process gets its Rail objects: the daemon brings a rail up once (programs the controller's
// rings, posts buffers), every process opens it by number in the host's shared memory.
#pragma once

#include <memory>

#include "rail/host_memory.h"
#include "rail/nhi/pci_device.h"
#include "rail/rail.h"
#include "tbt/status.h"

namespace tbt::rail {

// Brings up cable rail `rail` on the NHI's ring pair `rail + 1`: steps of nhi/nhi_rail.cc. Daemon
// only, once.
Status bring_up_nhi_rail(HostMemory& memory, uint32_t rail, nhi::PciDevice& device);
Status shut_down_nhi_rail(HostMemory& memory, uint32_t rail, nhi::PciDevice& device);

// Opens a rail for the process in `slot`. `memory` and `device` must outlive it.
std::unique_ptr<Rail> open_nhi_rail(HostMemory& memory, uint32_t rail, nhi::PciDevice& device,
                                    SlotId slot, Classifier classify);
// The rail between processes of this host (and to oneself): rail number memory.cables().
std::unique_ptr<Rail> open_loopback_rail(HostMemory& memory, SlotId slot, Classifier classify);

// Capture: while enabled, every frame sent or received on the rail by any process is also copied
// into a ring in `memory` (middleware/capture). Lost captures are counted, traffic is never held
// up.
struct CapturedFrame {
  int64_t time_ns = 0;  // CLOCK_REALTIME
  bool sent = false;    // by this host
  uint8_t sof = 0, eof = 0;
  uint32_t length = 0;  // bytes valid in the buffer given to read_capture
};
void enable_capture(HostMemory& memory, uint32_t rail, bool on) noexcept;
// Copies the oldest captured frame; false if there is none. One reader at a time.
bool read_capture(HostMemory& memory, uint32_t rail, CapturedFrame& frame,
                  std::byte (&buffer)[kFrameBytes]) noexcept;
uint64_t capture_lost(HostMemory& memory, uint32_t rail) noexcept;

}  // namespace tbt::rail
