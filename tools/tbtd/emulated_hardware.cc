#include "tbtd/emulated_hardware.h"

#include "fabric/open_host.h"
#include "rail/nhi/nhi_regs.h"
#include "tbtd/cable_change.h"
#include "tbtd/silicon_report.h"

namespace tbt::daemon {

Result<std::unique_ptr<Hardware>> EmulatedHardware::open(uint32_t host, uint32_t hosts,
                                                         std::vector<sys::UniqueFd> fds) {
  auto mapped = fabric::map_host({rail::kDaemonSlot, host, hosts}, std::move(fds));
  if (!mapped) return mapped.error();
  return std::unique_ptr<Hardware>(new EmulatedHardware(host, std::move(mapped).value()));
}

uint32_t EmulatedHardware::cable_number(uint32_t port) const {
  return host_->silicon->cable_of(number_, port);
}

Answer EmulatedHardware::grant(rail::SlotId slot) const {
  Answer a;
  a.attached = slot;
  a.text = fabric::encode_grant({.slot = slot, .host = number_, .hosts = host_->silicon->hosts()});
  a.fds.push_back(host_->silicon->fd());
  for (const auto& memory : host_->memories) a.fds.push_back(memory->fd());
  for (const auto& interrupt : host_->interrupt_fds) a.fds.push_back(interrupt.get());
  return a;
}

Answer EmulatedHardware::change_cable(const fabric::Request& request) {
  return daemon::change_cable(*host_->silicon, host_->interrupt_fds, request);
}

Answer EmulatedHardware::remove() {
  host_->silicon->remove_device(number_, true);
  return {.text = fabric::encode_done()};
}

bool EmulatedHardware::is_gone() const {
  return host_->device->read32(rail::nhi::kRegCapabilities) == rail::nhi::kDeviceGone;
}

void EmulatedHardware::report(nlohmann::json& status) const {
  report_silicon(*host_->silicon, number_, status);
}

}  // namespace tbt::daemon
