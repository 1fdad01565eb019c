// Attaching to the host's daemon: one Unix SOCK_SEQPACKET connection that lives as long as the
// process uses the fabric (the daemon sees its end when the process dies). Request and reply are
// JSON texts of at most 64 KiB; descriptors travel beside the reply (SCM_RIGHTS). docs/daemon.md
// lists every operation.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "rail/emulated/emulated_fabric.h"
#include "rail/host_memory.h"
#include "rail/nhi/pci_device.h"
#include "rail/rail.h"
#include "sys/unique_fd.h"
#include "tbt/status.h"

namespace tbt::fabric {

// Everything that a process needs of its host, opened. Rails are in order: cables, then the
// loopback. A host whose controller is a PCI device of this machine has no silicon, and of the
// vectors one element.
struct Attachment {
  rail::SlotId slot = rail::kNoSlot;
  sys::UniqueFd connection;
  std::vector<sys::UniqueFd> interrupt_fds;                 // one per emulated host
  std::vector<std::unique_ptr<rail::HostMemory>> memories;  // of every emulated host
  std::unique_ptr<rail::emulated::EmulatedFabric> silicon;
  rail::HostMemory* memory = nullptr;  // of this host
  int wake_fd = -1;                    // of this host, one of interrupt_fds
  std::unique_ptr<rail::nhi::PciDevice> device;
  std::vector<std::unique_ptr<rail::Rail>> rails;
};

// Where the daemon of this process's host listens: $TBT_SOCKET (set by `tbt run`), else
// /run/tbt/tbtd.sock. The variable is ignored in setuid programs.
std::string daemon_socket_path();

// Errors: ENOENT no daemon there (no socket), ECONNREFUSED a dead daemon's socket, EACCES not
// allowed, EAGAIN no free slot, EPROTO versions differ, EMFILE too few descriptors. Waits at most 5
// s.
Result<std::unique_ptr<Attachment>> attach(const std::string& socket_path);

// The slot of a packet's destination QPN; control frames go to the daemon. The classifier of every
// rail.
rail::SlotId classify(std::span<const std::byte> head, uint8_t sof, uint8_t eof) noexcept;

}  // namespace tbt::fabric
