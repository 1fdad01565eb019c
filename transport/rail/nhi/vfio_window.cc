#include "rail/nhi/vfio_window.h"

#include "rail/nhi/nhi_regs.h"
#include "rail/nhi/pci_config.h"

namespace tbt::rail::nhi {

Result<std::unique_ptr<VfioWindow>> VfioWindow::open(sys::UniqueFd device, PciIdentity identity,
                                                     OwnMemory own, VfioKernel& kernel) {
  std::unique_ptr<VfioWindow> window(
      new VfioWindow(device.release(), identity, std::move(own), kernel));
  auto config = PciConfig::of_device(kernel, window->device_);
  if (!config) return Status(EPROTO, "not the descriptor of a controller");
  auto msix = config->msix();
  if (!msix) return msix.error();
  const Status mapped = window->bar_.map(window->device_, *msix);
  if (!mapped) return mapped;
  if (window->read32(kRegCapabilities) == kDeviceGone) {
    return Status(ENODEV, "the controller is gone");
  }
  return window;
}

VfioWindow::~VfioWindow() {
  bar_.unmap();
  kernel_.close(device_);
}

}  // namespace tbt::rail::nhi
